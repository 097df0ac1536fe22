/* SPDX-License-Identifier: Apache-2.0 */
#include "common/page.h"

#include <string.h>
#include <unistd.h>

#include "common/json.h"

static const char base_style[] =
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 "
    "1em;overflow-x:auto;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}td.t,th.t{text-align:left}"
    "svg text{font:12px system-ui,sans-serif;fill:#222}.k td{background:#fff3d6}"
    "@media(prefers-color-scheme:dark){body{background:#16181b;color:#ddd}svg text{fill:#ddd}td,th{border-color:#444}"
    ".k td{background:#3a3018}}";

void terse_page_text(FILE *out, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        const size_t n = terse_json_utf8(text, left);
        if (n == 0)
            fputc('?', out);
        else if (n > 1)
            fwrite(text, 1, n, out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else if (*text == '\'')
            fputs("&#39;", out);
        else if ((unsigned char)*text >= ' ' && *text != 127)
            fputc(*text, out);
        text += n ? n : 1;
        left -= n ? n : 1;
    }
}

int terse_page_open(const char *path, const char *title, const char *style, terse_page *ret_page, terse_error *error)
{
    terse_page page = {0};
    const int status = terse_atomic_open(path, &page.file, error);
    if (status != TERSE_OK)
        return status;
    const int fd = dup(page.file.fd);
    page.out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!page.out) {
        if (fd >= 0)
            close(fd);
        terse_atomic_discard(&page.file);
        return terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
    }
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>", page.out);
    terse_page_text(page.out, title);
    fprintf(page.out,
            "</title><meta name=\"color-scheme\" content=\"light dark\"/>"
            "<meta name=\"viewport\" content=\"width=device-width\"/><style>%s%s</style>\n</head><body>\n",
            base_style, style);
    *ret_page = page;
    return TERSE_OK;
}

int terse_page_close(terse_page *page, terse_error *error)
{
    fputs("</body></html>\n", page->out);
    const bool written = fflush(page->out) == 0 && !ferror(page->out);
    if (fclose(page->out) != 0 || !written) {
        terse_atomic_discard(&page->file);
        return terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", page->file.path);
    }
    return terse_atomic_commit(&page->file, false, error);
}
