/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/bytes.h"

static const char prefix[] = "terse-model-";

/* FNV-1a, 64 bits: tells one loader from another, nothing that anybody could gain by fooling it. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
    for (const unsigned char *at = bytes; n > 0; n--)
        hash = (hash ^ *at++) * UINT64_C(0x100000001b3);
    return hash;
}

/* The same file may be laid out differently by another build, and for another instruction set that is asked for. */
static uint64_t loader_number(const char *path)
{
    struct stat info = {0};
    const char *isa = getenv("TERSE_ISA");
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    (void)stat(path, &info); /* not there: the start fails over that by itself */
    const uint64_t numbers[] = {info.st_dev, info.st_ino, (uint64_t)info.st_size, (uint64_t)info.st_mtim.tv_sec,
                                (uint64_t)info.st_mtim.tv_nsec};
    hash = mix(hash, numbers, sizeof numbers);
    hash = mix(hash, TERSE_VERSION, sizeof TERSE_VERSION);
    return isa ? mix(hash, isa, strlen(isa)) : hash;
}

/* All of a name but what makes it the only one. */
static int describe(const terse_store *store, const terse_file_mark *mark, char name[static TERSE_STORE_NAME])
{
    return snprintf(name, TERSE_STORE_NAME, "%s%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-", prefix,
                    store->loader, mark->device, mark->inode, mark->bytes, mark->changed_ns);
}

/* Everything that is no memory of a model is to be a listening socket: listeners.c says so when it is not. */
static int add(terse_store *store, int fd, const char *name, terse_error *error)
{
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        if (store->n_models == TERSE_STORE_MODELS || strlen(name) >= TERSE_STORE_NAME) {
            close(fd);
            return TERSE_OK;
        }
        store->models[store->n_models].fd = fd;
        memcpy(store->models[store->n_models++].name, name, strlen(name) + 1);
        return TERSE_OK;
    }
    if (store->n_sockets == TERSE_STORE_SOCKETS) {
        close(fd);
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the service manager passes more than %d sockets",
                          TERSE_STORE_SOCKETS);
    }
    store->sockets[store->n_sockets++] = fd;
    return TERSE_OK;
}

/* sd_listen_fds_with_names() sets CLOEXEC and takes its variables out of the environment. */
int terse_store_open(terse_store *store, const char *loader, terse_error *error)
{
    char **names = NULL;
    *store = (terse_store){.loader = loader_number(loader)};
    store->models = calloc(TERSE_STORE_MODELS, sizeof *store->models);
    if (!store->models)
        return terse_fail(error, TERSE_SYSTEM, "cannot keep %d models", TERSE_STORE_MODELS);
    const int n = sd_listen_fds_with_names(1, &names);
    if (n < 0) {
        errno = -n;
        return terse_fail(error, TERSE_SYSTEM, "cannot take the descriptors of the service manager");
    }
    int r = TERSE_OK;
    for (int i = 0; i < n; i++) {
        const int added = add(store, SD_LISTEN_FDS_START + i, names ? names[i] : "", error);
        r = added ? added : r;
        if (names)
            free(names[i]);
    }
    free(names);
    return r;
}

int terse_store_take(terse_store *store, const terse_file_mark *mark, char ret_name[static TERSE_STORE_NAME])
{
    char wanted[TERSE_STORE_NAME];
    const int length = describe(store, mark, wanted);
    for (unsigned i = 0; i < store->n_models; i++) {
        const int fd = store->models[i].fd;
        if (fd < 0 || strncmp(store->models[i].name, wanted, (size_t)length) != 0)
            continue;
        memcpy(ret_name, store->models[i].name, TERSE_STORE_NAME);
        store->models[i].fd = -1;
        return fd;
    }
    return -1;
}

void terse_store_keep(const terse_store *store, const terse_file_mark *mark, int fd,
                      char ret_name[static TERSE_STORE_NAME])
{
    uint32_t only;
    ret_name[0] = 0;
    if (!getenv("NOTIFY_SOCKET") || mark->changed_ns == 0 || getrandom(&only, sizeof only, 0) != (ssize_t)sizeof only)
        return;
    const int length = describe(store, mark, ret_name);
    snprintf(ret_name + length, TERSE_STORE_NAME - (size_t)length, "%08" PRIx32, only);
    char text[TERSE_STORE_NAME + 32];
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", ret_name);
    if (sd_pid_notify_with_fds(0, 0, text, &fd, 1) <= 0)
        ret_name[0] = 0;
}

void terse_store_forget(char name[static TERSE_STORE_NAME])
{
    if (*name)
        sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    *name = 0;
}

void terse_store_sweep(terse_store *store)
{
    for (unsigned i = 0; i < store->n_models; i++) {
        if (store->models[i].fd < 0)
            continue;
        terse_store_forget(store->models[i].name);
        terse_close_fdp(&store->models[i].fd);
    }
    store->n_models = 0;
}

void terse_store_close(terse_store *store)
{
    for (unsigned i = 0; i < store->n_models; i++)
        terse_close_fdp(&store->models[i].fd);
    for (unsigned i = 0; i < store->n_sockets; i++)
        terse_close_fdp(&store->sockets[i]);
    free(store->models);
    *store = (terse_store){0};
}
