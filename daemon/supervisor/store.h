/* SPDX-License-Identifier: Apache-2.0 */
/* store.h: descriptors that the service manager hands over at the start, and the memory of models that it keeps for the
 * next tersed.
 * Runs in: tersed. Ownership: a terse_store owns what nobody has taken out of it yet.
 *
 * A model's sealed memory is given to the service manager (FDSTORE=1) once it serves, under a name that says what it
 * was made of: the file's device, inode, size and time, this version, and the loader that laid it out. When tersed is
 * restarted, on purpose or because it died, the next one finds the memory under that name and need not read the file.
 * A file that is another one by then has another name. Without a service manager all of it does nothing. */
#ifndef TERSE_SUPERVISOR_STORE_H
#define TERSE_SUPERVISOR_STORE_H

#include "daemon/supervisor/config.h"

enum { TERSE_STORE_NAME = 160, TERSE_STORE_MODELS = 2 * TERSE_MAX_MODELS, TERSE_STORE_SOCKETS = 4 * TERSE_MAX_LISTEN };

typedef struct terse_store {
    struct {
        int fd; /* -1: taken */
        char name[TERSE_STORE_NAME];
    } * models;
    unsigned n_models;
    int sockets[TERSE_STORE_SOCKETS]; /* -1: taken */
    unsigned n_sockets;
    uint64_t loader; /* what lays models out here */
} terse_store;

/* Takes what LISTEN_FDS= tells of out of the environment: sockets and memory. `loader` is the program's path. */
int terse_store_open(terse_store *store, const char *loader, terse_error *error);
/* Closes what nobody took, and has the service manager forget it. */
void terse_store_sweep(terse_store *store);
void terse_store_close(terse_store *store);

/* The memory that was kept for this file, with its name there, the caller's to close; -1: there is none. */
int terse_store_take(terse_store *store, const terse_file_mark *mark, char ret_name[static TERSE_STORE_NAME]);
/* Has it kept; *ret_name is "" when nobody keeps it. */
void terse_store_keep(const terse_store *store, const terse_file_mark *mark, int fd,
                      char ret_name[static TERSE_STORE_NAME]);
void terse_store_forget(char name[static TERSE_STORE_NAME]);

#endif
