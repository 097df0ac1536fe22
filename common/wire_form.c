/* SPDX-License-Identifier: Apache-2.0 */
/* Headers that are like one of the last: read by comparing bytes. */
#include <string.h>

#include "common/wire_walk.h"

void terse_wire_walk_mark(terse_wire_walk *w, const uint8_t *from, const void *value, terse_wire_hole_kind kind)
{
    terse_wire_form *form = w->form;
    const uintptr_t base = (uintptr_t)w->values, at = (uintptr_t)value;
    if (at < base || at >= base + w->values_bytes)
        return; /* no part of it: it must be the same again */
    if (form->n_holes == TERSE_WIRE_FORM_HOLES) {
        form->bytes = 0;
        return;
    }
    form->holes[form->n_holes++] = (terse_wire_hole){
        .from = (uint16_t)(from - form->header),
        .to = (uint16_t)(w->reader.at - form->header),
        .kind = kind,
        .value = (uint32_t)(at - base),
    };
}

/* Puts the value of a hole where it belongs; false: it is not of that kind. */
static bool fill_hole(const terse_wire_hole *hole, terse_pack_reader *reader, uint8_t *value)
{
    terse_pack_item item;
    if (hole->kind == TERSE_WIRE_HOLE_TOKEN) {
        if (reader->end - reader->at < TERSE_WIRE_SESSION_BYTES)
            return false;
        memcpy(value, reader->at, TERSE_WIRE_SESSION_BYTES);
        reader->at += TERSE_WIRE_SESSION_BYTES;
        return true;
    }
    if (!terse_pack_next(reader, &item) || item.type != TERSE_PACK_UINT)
        return false;
    if (hole->kind == TERSE_WIRE_HOLE_U64) {
        memcpy(value, &item.u, sizeof item.u);
        return true;
    }
    const uint32_t small = (uint32_t)item.u;
    memcpy(value, &small, sizeof small);
    return item.u <= UINT32_MAX;
}

/* Reads `size` bytes as that form. false: they are not, and what `values` holds of numbers is not to be used. */
static bool read_as(const terse_wire_form *form, void *values, const uint8_t *header, size_t size)
{
    terse_pack_reader reader = terse_pack_reader_over(header, size);
    uint32_t at = 0;
    for (uint32_t i = 0; i <= form->n_holes; i++) {
        const terse_wire_hole *hole = &form->holes[i];
        const uint32_t until = i < form->n_holes ? hole->from : form->bytes, fixed = until - at;
        if ((size_t)(reader.end - reader.at) < fixed || memcmp(reader.at, form->header + at, fixed) != 0)
            return false;
        reader.at += fixed;
        if (i == form->n_holes)
            break;
        if (!fill_hole(hole, &reader, (uint8_t *)values + hole->value))
            return false;
        at = hole->to;
    }
    return reader.at == reader.end;
}

/* The form that reads the header, of those that begin with the last one of use; -1: none. Their values lie `stride`
 * bytes apart. */
static int find_form(const terse_wire_form *forms, uint32_t last, void *values, size_t stride, const void *header,
                     size_t size)
{
    for (uint32_t i = 0; i < TERSE_WIRE_FORMS; i++) {
        const uint32_t which = (last + i) % TERSE_WIRE_FORMS;
        if (forms[which].bytes > 0 && read_as(&forms[which], (uint8_t *)values + which * stride, header, size))
            return (int)which;
    }
    return -1;
}

/* Makes room for a new form in place of the one that was of no use for longest. Texts point into it from then on,
 * whatever the next header looks like. */
static uint32_t begin_form(terse_wire_form *forms, uint32_t last, const void *header, size_t size)
{
    const uint32_t next = (last + TERSE_WIRE_FORMS - 1) % TERSE_WIRE_FORMS;
    memcpy(forms[next].header, header, size);
    forms[next].n_holes = 0;
    forms[next].bytes = (uint32_t)size;
    return next;
}

int terse_wire_decode_like(terse_wire_forms *forms, const void *header, size_t size, terse_wire_request **ret_request,
                           terse_error *error)
{
    const int found = find_form(forms->forms, forms->last, forms->requests, sizeof forms->plain, header, size);
    if (found >= 0) {
        forms->last = (uint32_t)found;
        *ret_request = &forms->requests[found];
        return TERSE_OK;
    }
    if (size > TERSE_WIRE_FORM_BYTES) {
        *ret_request = &forms->plain;
        return terse_wire_walk_request(header, size, NULL, &forms->plain, error);
    }
    const uint32_t next = begin_form(forms->forms, forms->last, header, size);
    terse_wire_form *form = &forms->forms[next];
    *ret_request = &forms->requests[next];
    const int status = terse_wire_walk_request(form->header, size, form, *ret_request, error);
    if (status || (*ret_request)->op != TERSE_WIRE_INFER)
        form->bytes = 0;
    else if (form->bytes > 0)
        forms->last = next;
    return status;
}

int terse_wire_decode_reply_like(terse_wire_reply_forms *forms, const void *header, size_t size,
                                 const terse_wire_reply **ret_reply, terse_error *error)
{
    const int found = find_form(forms->forms, forms->last, forms->replies, sizeof forms->plain, header, size);
    if (found >= 0) {
        forms->last = (uint32_t)found;
        *ret_reply = &forms->replies[found];
        return TERSE_OK;
    }
    if (size > TERSE_WIRE_FORM_BYTES) {
        *ret_reply = &forms->plain;
        return terse_wire_walk_reply(header, size, NULL, &forms->plain, error);
    }
    const uint32_t next = begin_form(forms->forms, forms->last, header, size);
    terse_wire_form *form = &forms->forms[next];
    *ret_reply = &forms->replies[next];
    const int status = terse_wire_walk_reply(form->header, size, form, &forms->replies[next], error);
    /* What failed says why, each time something else. */
    if (status || (*ret_reply)->status != TERSE_OK || !(*ret_reply)->has_outputs)
        form->bytes = 0;
    else if (form->bytes > 0)
        forms->last = next;
    return status;
}
