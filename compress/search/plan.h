/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h: everything that makes a file out of a network, its calibration data and nothing else: plan.json. A search
 * writes it, `--plan FILE` does it again, bit for bit, and people may change it in between.
 * Runs in: terse-compress (and the tests). Ownership: a plan owns its lists. */
#ifndef TERSE_SEARCH_PLAN_H
#define TERSE_SEARCH_PLAN_H

#include "common/graph/graph.h"
#include "compress/options.h"
#include "compress/search/choices.h"

typedef struct terse_search_plan terse_search_plan;

enum { TERSE_PLAN_VERSION = 1, TERSE_PLAN_LABEL = 96, TERSE_PLAN_TEXT = 256 };

/* What was measured for the kernels of one node, so that it need not be measured again. */
typedef enum terse_tuned_kind { TERSE_TUNED_ALGORITHM, TERSE_TUNED_SPARSE, TERSE_TUNED_TILES } terse_tuned_kind;

typedef struct terse_tuned {
    terse_tuned_kind kind;
    char node[TERSE_CHOICE_NAME];
    char text[TERSE_CHOICE_WHY]; /* the algorithm; of sparse: the reason; of tiles: the attribute's name */
    int64_t rows, bytes;         /* of tiles */
    bool sparse;
    double us_dense, us_sparse;
} terse_tuned;

/* A network that was built and measured. */
typedef struct terse_measured {
    char label[TERSE_PLAN_LABEL]; /* "int8, all layers dense" */
    char key[TERSE_PLAN_TEXT];    /* tells plans apart: a digest of the choices */
    double drop, low, high;       /* percent, with its 95 % interval */
    double agreement, kl;         /* share of samples; nats a sample; NAN: no classifier */
    double us;                    /* of one run, with the threads and the batch asked for */
    int64_t bytes, memory;        /* of the file; of constants in memory */
    bool dense;                   /* no layer differs from the others */
    bool single;                  /* of one technique alone */
    bool meets, pareto, chosen;
} terse_measured;

struct terse_search_plan {
    uint64_t seed;
    char goal[TERSE_PLAN_TEXT]; /* in words */
    char of[TERSE_PLAN_TEXT];   /* what was measured: network, batch, threads */
    char culprit[TERSE_PLAN_TEXT];
    int held_out; /* every n-th sample was kept for judging; 0: none */
    terse_quantize_mode quantize;
    bool bf16, pack;
    terse_equalization equalization;    /* of int8: as it was found out for all layers dense */
    double channels;                    /* share of the work that goes with whole channels, before all else; 0: none */
    char channels_why[TERSE_PLAN_TEXT]; /* what came of it, or why none go; in words */
    int64_t recover_epochs;             /* what low rank, pruning and int8 lose is trained for so many; 0: it is not */
    int64_t recover_done[2]; /* of FP32 weights, of rounded ones: epochs until it was ended; 0: none was, -1: at once */
    char recovered[TERSE_PLAN_TEXT]; /* what came of it, or why it is not done; in words */
    char trained[TERSE_PLAN_TEXT];   /* which networks were trained, and what came of each; in words */
    char spent[TERSE_PLAN_TEXT];     /* what the search's time went into; in words */
    terse_choices layers;
    terse_tuned *tuned;
    int n_tuned;
    bool is_tuned; /* the list is complete: nothing is measured */
    terse_measured *measured;
    int n_measured;
    double dense_us; /* of the fastest dense network */
    /* as text, for options */
    char *keep_text, recover_text[24];
    /* for the one who builds it: seconds that its training may take, and what it took a sample; not in the file */
    double recover_seconds, recover_pace;
};

void terse_search_plan_done(terse_search_plan *plan); /* accepts a zeroed one */
int terse_search_plan_copy(const terse_search_plan *from, terse_search_plan *ret_plan, terse_error *error);
terse_measured *terse_search_plan_add_measured(terse_search_plan *plan); /* NULL: memory is out */
/* The choices, as short text that is equal for equal ones; TERSE_PLAN_TEXT bytes. */
void terse_search_plan_key(const terse_search_plan *plan, char *text);

/* What the plan says becomes what the command line says. The options borrow the plan. */
int terse_search_plan_apply(terse_search_plan *plan, terse_options *options, terse_error *error);

/* What that pruning of channels has left of each layer; layers that the plan does not name are added, dense. */
int terse_search_plan_tell_channels(terse_search_plan *plan, const terse_prune_report *channels, terse_error *error);

/* Numbers as plan.json holds them: nine digits. */
double terse_search_plan_number(double number);
int terse_search_plan_write(const terse_search_plan *plan, const char *path, terse_error *error);
/* INVALID_ARGUMENT names the file, the member, what was found and what is allowed. */
int terse_search_plan_read(const char *path, terse_search_plan *ret_plan, terse_error *error);
/* Every layer of the plan must be in the network. */
int terse_search_plan_check(const terse_search_plan *plan, const terse_graph *graph, terse_error *error);

/* --- tuning.c: measured choices go from a graph into the plan, and back --------------------------------------------
 */

/* Behind terse_tune_algorithms (before FINISH): keeps what it chose; or, when the plan is tuned, sets that. */
int terse_tuning_algorithms(terse_search_plan *plan, terse_graph *graph, terse_error *error);
/* Instead of terse_prune_choose. */
int terse_tuning_sparse(terse_search_plan *plan, terse_graph *graph, terse_prune_report *report, bool measure,
                        terse_error *error);
/* Behind terse_tune_tiles. */
int terse_tuning_tiles(terse_search_plan *plan, terse_graph *graph, terse_error *error);

#endif
