/* SPDX-License-Identifier: Apache-2.0 */
/* links.h: the endpoints of a client: one DEALER socket each, and its monitor, which tells when the connection was lost
 * and made.
 * Ownership: a client owns its links; a sent entry points to the link that it went over.
 *
 * Design notes
 *   ZMQ_IMMEDIATE keeps libzmq from queueing for a peer that is not there: what cannot be sent stays with us, unsent.
 *   Between a loss and our learning of it libzmq may still take a message into the pipe of the lost connection. So a
 *   handshake, not the loss, decides: whatever went over that link and is unanswered is sent (again) then, under the
 *   same session and ids. The daemon drops what it has already; a second answer finds no entry here and is dropped too.
 *   With several links a request goes over the one with the fewest unanswered ones. What a lost link has goes over the
 *   others at once. A peer may also fall silent without a loss (it was stopped, the network was cut): a link that owes
 *   answers and has brought nothing for half of resend_ns is asked "live", which a daemon answers however long its
 *   workers compute; when nothing comes for the other half what it has goes over the others, and new requests pass it
 *   over until something comes from it. A daemon that is full or shutting down is passed over for as long as it says.
 */
#ifndef TERSE_CLIENT_LINKS_H
#define TERSE_CLIENT_LINKS_H

#include "client/internal.h"
#include "common/frames.h"

enum {
    TERSE_MAX_LINKS = 16,
    TERSE_LINK_FRAMES = TERSE_WIRE_MAX_IO + 1,
    TERSE_WINDOW_BYTES = 64 << 20, /* of what is sent and not answered over a link, as SEND_MARK of links.c */
    TERSE_LOST_WINDOW_BYTES =
        8 << 20, /* the same after a connection was lost: what is sent is lost with the next one */
};

typedef struct terse_link {
    void *socket, *monitor;
    char *endpoint;
    int socket_fd, monitor_fd;
    bool connected;
    bool full;           /* its socket took no more when something was to be sent */
    bool silent;         /* passed over until something comes */
    bool probed;         /* it was asked "live", and nothing has come since */
    uint64_t waiting_ns; /* several links: since when nothing has come, or has been owed */
    uint64_t refuses_until_ns;
    size_t n_sent;     /* requests that are sent and not answered */
    size_t sent_bytes; /* theirs */
    size_t window_cut; /* by how much fewer may be, after a connection was lost */
    terse_frames frames;
} terse_link;

/* Takes the list of client->endpoint apart and connects all. */
terse_status terse_links_open(terse_client *client, const terse_client_options *options);
void terse_links_close(terse_client *client);

/* The link that an entry goes over now: among those that are best to use, that with the fewest unanswered requests and
 * room for it, none that is full. NULL: it waits, for those or for answers. */
terse_link *terse_links_choose(terse_client *client, const pending *entry);
/* One whole message into `frames`, of TERSE_LINK_FRAMES; the caller closes *ret_n of them. false: none is there. A
 * message of too many frames is read to its end and counted as one of 0 frames. */
bool terse_links_receive(terse_link *link, zmq_msg_t *frames, int *ret_n);
/* Something came over it. */
void terse_links_heard(terse_client *client, terse_link *link);
/* A refusal that another daemon may not give: the entry goes there. false: it is the answer. */
bool terse_links_turn_away(terse_client *client, terse_link *link, pending *entry, const terse_wire_reply *wire);
/* Reads the monitors. */
void terse_links_watch(terse_client *client);
/* Several links: asks and gives up those that are silent. */
void terse_links_tick(terse_client *client, uint64_t now);
uint64_t terse_links_next_ns(const terse_client *client); /* NEVER: time changes nothing */

#endif
