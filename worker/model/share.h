#pragma once

/*
 * Packed weights, once per host: a sealed memfd that every CPU worker of this user maps read-only.
 *
 * The first process that needs a key makes the memfd, fills it, seals it and writes a line into a
 * small registry file; later ones open it through /proc and map the same pages. The kernel frees the
 * memory with the last process. A registry file is held by flock while it is read or written, so two
 * workers that start together pack once; a holder that died is skipped; the last one that closes
 * removes the file.
 *
 * Invariant: what is mapped is sealed against writing and carries the key in its first page.
 */

#include "common/base.h"
#include "common/buf.h"

enum { WK_SHARE_PAGE = 4096 }; /* offset of the payload; the first page is the header */

struct wk_share {
    const uint8_t *data; /* payload */
    size_t n_bytes;      /* of the payload */
    uint64_t digest;     /* what fill returned, also when another process filled it */
    int fd;
    bool found; /* made by another process */
};

/* Writes the payload; returns its digest. */
typedef uint64_t (*wk_share_fill_fn)(uint8_t *dst, size_t n_bytes, void *ud);

PS_MUST int wk_share_open(struct wk_share *out, uint64_t key, size_t n_bytes, wk_share_fill_fn fill,
                          void *ud);
void wk_share_close(struct wk_share *s);
