#pragma once

/*
 * CURVE keys, and who may enter: the ZAP handler with its allow-list.
 *
 * CURVE alone lets any key in, so a ROUTER with keys always has this handler, bound before the socket.
 * The list maps a public key to a worker uid; the uid travels with every message of the connection as
 * its user id, and the receiver compares it with what Hello claims. The handler has a thread of its
 * own: a slow one delays new connections only. The file is read again when an unknown key knocks and
 * the file has changed.
 *
 * Allow file: lines `public-key uid`, the key as 40 Z85 characters, the uid as 16 hex digits; lines
 * whose first word starts with # and is not a key are comments.
 */

#include "common/base.h"
#include "common/mq/mq.h"

#define PS_ZAP_DOMAIN "penstock"

struct ps_zap;

enum {
    PS_ZAP_OK,
    PS_ZAP_E_CONFIG, /* a file cannot be read or parsed: text in err */
    PS_ZAP_E_OPEN,   /* self-test: a random key was not refused */
};

void ps_curve_keypair(char pub[PS_MQ_KEY_CHARS], char sec[PS_MQ_KEY_CHARS]);
/* err_size >= 160 for all. secret_file: one Z85 secret key; server_key_file ("" at a server): one Z85
 * public key. */
PS_MUST int ps_curve_load(struct ps_mq_keys *out, const char *secret_file,
                          const char *server_key_file, char *err, size_t err_size);
PS_MUST int ps_zap_start(struct ps_zap **out, struct ps_mq *q, const char *allow_file, char *err,
                         size_t err_size);
void ps_zap_stop(struct ps_zap *z); /* NULL is fine */
/* Dials the bound port with a key made up now; OK only when it is refused. Blocks up to 3 s. */
PS_MUST int ps_zap_self_test(struct ps_mq *q, const struct ps_mq_keys *server, const char *host,
                             uint16_t port, char *err, size_t err_size);
