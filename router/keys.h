#pragma once

/*
 * API keys: who may call, and whose cache entries are whose.
 *
 * Keys come from --api-key and from a file that is read again when it changes (mtime, every 5 s, and on
 * SIGHUP); a bad file keeps the old set. Only SHA-256 digests are kept, and a presented key is compared
 * with every entry in constant time. Readers on any loop thread take a reference to an immutable set.
 *
 * Invariants
 *   K1 without any key configured everything is open; once a set is in force an empty or broken file
 *      never opens it.
 *   K2 missing and wrong keys are told apart by nobody.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/conf.h"

struct rt_keys;

struct rt_key {
    char name[64];
    uint64_t tenant_salt; /* HMAC(cluster secret, tenant), first 8 bytes */
    bool admin;
};

enum { RT_KEYS_OPEN /* no keys configured */, RT_KEYS_OK, RT_KEYS_BAD };

enum {
    RT_KEYS_LOADED,
    RT_KEYS_E_FILE, /* unreadable, world-readable, or a line is wrong: err */
};

PS_MUST int rt_keys_create(struct rt_keys **out, const struct ps_conf_list *keys, const char *file,
                           const uint8_t cluster_secret[32], struct ps_buf *err);
void rt_keys_destroy(struct rt_keys *k); /* NULL is fine; no reader may be left */
bool rt_keys_configured(const struct rt_keys *k);
/* Reads the file again if it changed or force is set. One thread (main's) calls this. */
void rt_keys_reload(struct rt_keys *k, bool force);
/* The three headers that may carry a key, NULL when absent; the first present one decides. */
int rt_keys_check(struct rt_keys *k, const char *authorization, const char *x_api_key,
                  const char *api_key, struct rt_key *out);
