/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/page.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* The file as it is, by the assembler (the Makefile has the dependency). */
__asm__(".section .rodata\n"
        ".global terse_page_begin\n"
        "terse_page_begin:\n"
        ".incbin \"client/gateway/page/index.html\"\n"
        ".global terse_page_end\n"
        "terse_page_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char terse_page_begin[], terse_page_end[];

const char *terse_page(size_t *ret_size)
{
    *ret_size = (size_t)(terse_page_end - terse_page_begin);
    return terse_page_begin;
}

/* 'sha256-...' of what stands between the tags. */
static void digest(const char *open, const char *close, char *to, size_t size)
{
    const char *begin = strstr(terse_page_begin, open), *end = begin ? strstr(begin, close) : NULL;
    unsigned char hash[crypto_hash_sha256_BYTES];
    char text[sodium_base64_ENCODED_LEN(sizeof hash, sodium_base64_VARIANT_ORIGINAL)] = "";
    if (end) {
        begin += strlen(open);
        crypto_hash_sha256(hash, (const unsigned char *)begin, (unsigned long long)(end - begin));
        sodium_bin2base64(text, sizeof text, hash, sizeof hash, sodium_base64_VARIANT_ORIGINAL);
    }
    snprintf(to, size, "'sha256-%s'", text);
}

const char *terse_page_policy(void)
{
    static char policy[512];
    char script[80], style[80];
    if (!*policy) {
        digest("<script>", "</script>", script, sizeof script);
        digest("<style>", "</style>", style, sizeof style);
        snprintf(policy, sizeof policy,
                 "default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src data:; base-uri 'none'; "
                 "form-action 'none'; frame-ancestors 'none'",
                 script, style);
    }
    return policy;
}
