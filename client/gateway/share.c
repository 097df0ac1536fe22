/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/share.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

enum {
    ARENA_BYTES = 8 << 20, /* of inputs, and of outputs; what is never touched is never there */
    LARGEST = 256 * 1024,  /* bytes of a tensor: larger ones would keep out many small ones */
    FORMS = 256,
    NAME = 64,
};

#define MEND_NS UINT64_C(10000000000)

/* How large the outputs of a form are. */
typedef struct form {
    size_t size; /* bytes of the key; 0: none */
    char key[TERSE_LOAN_FORM];
    unsigned n;
    struct {
        char name[NAME];
        size_t bytes;
    } outputs[TERSE_LOAN_TENSORS];
} form;

struct terse_share {
    terse_client *client;
    terse_client_arena *arena; /* NULL: there is none */
    bool doubted, never;       /* lends nothing for now; is not to be had at all */
    uint64_t n_lent;           /* ranges */
    uint64_t tried_ns;
    form forms[FORMS];
};

static void attach(terse_share *share)
{
    const terse_status status = terse_arena_attach(share->client, ARENA_BYTES, ARENA_BYTES, &share->arena);
    share->never = status == TERSE_INVALID_ARGUMENT; /* over tcp, and with several daemons */
    share->doubted = false;
    share->tried_ns = terse_now_ns();
}

terse_share *terse_share_new(terse_client *client)
{
    terse_share *share = calloc(1, sizeof *share);
    if (!share)
        return NULL;
    share->client = client;
    attach(share);
    return share;
}

void terse_share_doubt(terse_share *share)
{
    share->doubted = true;
}

void terse_share_mend(terse_share *share)
{
    if (!share || (share->arena && !share->doubted) || share->never || share->n_lent > 0 ||
        terse_now_ns() < share->tried_ns + MEND_NS)
        return;
    terse_arena_detach(share->arena);
    share->arena = NULL;
    attach(share); /* the daemon has just answered, and does so again at once */
}

void terse_share_free(terse_share *share)
{
    if (share)
        terse_arena_detach(share->arena);
    free(share);
}

/* --- a loan ----------------------------------------------------------------------------------------------- */

void terse_loan_begin(terse_loan *loan, terse_share *share)
{
    loan->share = share && share->arena && !share->doubted ? share : NULL;
    loan->n = loan->n_outputs = 0;
    loan->partly = false;
    loan->form_size = 0;
}

void terse_loan_note(terse_loan *loan, const void *bytes, size_t size)
{
    if (!loan->share || loan->partly)
        return;
    if (size > sizeof loan->form - loan->form_size) {
        loan->partly = true;
        return;
    }
    memcpy(loan->form + loan->form_size, bytes, size);
    loan->form_size += size;
}

terse_client_arena *terse_loan_arena(const terse_loan *loan)
{
    return loan->share->arena;
}

void *terse_loan_input(terse_loan *loan, const void *data, size_t bytes)
{
    void *at = NULL;
    if (loan->share && loan->n < TERSE_LOAN_TENSORS && bytes > 0 && bytes <= LARGEST)
        at = terse_arena_take_input(loan->share->arena, bytes);
    if (!at) {
        loan->partly = true;
        return NULL;
    }
    loan->ranges[loan->n++] = at;
    loan->share->n_lent++;
    return memcpy(at, data, bytes);
}

void terse_loan_end(terse_loan *loan)
{
    for (unsigned i = 0; i < loan->n; i++)
        terse_arena_give(loan->share->arena, loan->ranges[i]);
    if (loan->n > 0)
        loan->share->n_lent -= loan->n;
    loan->n = loan->n_outputs = 0;
}

/* --- forms ------------------------------------------------------------------------------------------------ */

/* Where the form is, or would be. */
static form *place_of(terse_share *share, const terse_loan *loan)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a; the keys are compared */
    for (size_t i = 0; i < loan->form_size; i++)
        hash = (hash ^ (unsigned char)loan->form[i]) * UINT64_C(0x100000001b3);
    return &share->forms[hash % FORMS];
}

static bool is_it(const form *f, const terse_loan *loan)
{
    return f->size > 0 && f->size == loan->form_size && memcmp(f->key, loan->form, f->size) == 0;
}

void terse_share_place(terse_share *share, terse_loan *loan, terse_request *request)
{
    if (!share || !loan->share || loan->partly || loan->form_size == 0)
        return;
    const form *f = place_of(share, loan);
    if (!is_it(f, loan))
        return;
    void *ranges[TERSE_LOAN_TENSORS];
    for (unsigned i = 0; i < f->n; i++) {
        ranges[i] = terse_arena_take_output(share->arena, f->outputs[i].bytes);
        if (!ranges[i]) { /* all or none */
            while (i > 0)
                terse_arena_give(share->arena, ranges[--i]);
            return;
        }
    }
    for (unsigned i = 0; i < f->n; i++) {
        loan->ranges[loan->n++] = ranges[i];
        loan->n_outputs++;
        share->n_lent++;
        terse_request_place_output(request, f->outputs[i].name, share->arena, ranges[i], f->outputs[i].bytes);
    }
}

void terse_share_learn(terse_share *share, const terse_loan *loan, const terse_reply *reply)
{
    const int n = terse_reply_n_outputs(reply);
    if (!share || !loan->share || loan->partly || loan->form_size == 0 || loan->n_outputs > 0 || n < 1 ||
        n > TERSE_LOAN_TENSORS)
        return;
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;
        terse_reply_data(reply, i, &bytes);
        if (bytes == 0 || bytes > LARGEST || strlen(terse_reply_name(reply, i)) >= NAME)
            return;
    }
    form *f = place_of(share, loan);
    f->size = loan->form_size;
    memcpy(f->key, loan->form, loan->form_size);
    f->n = (unsigned)n;
    for (int i = 0; i < n; i++) {
        strcpy(f->outputs[i].name, terse_reply_name(reply, i));
        terse_reply_data(reply, i, &f->outputs[i].bytes);
    }
}

void terse_share_forget(terse_share *share, const terse_loan *loan)
{
    form *f = place_of(share, loan);
    if (is_it(f, loan))
        f->size = 0;
}
