#include "worker/tier/tier.h"

#include <string.h>

void wk_tier_inbox_init(struct wk_tier_inbox *b, struct ps_wake *wake)
{
    pthread_mutex_init(&b->lock, NULL);
    b->first = NULL;
    b->last = NULL;
    b->wake = wake;
}

void wk_tier_inbox_fini(struct wk_tier_inbox *b)
{
    PS_ASSERT(b->first == NULL);
    pthread_mutex_destroy(&b->lock);
}

void wk_tier_post(struct wk_tier_inbox *b, struct wk_tier_io *io)
{
    io->next = NULL;
    pthread_mutex_lock(&b->lock);
    if (b->last != NULL)
        b->last->next = io;
    else
        b->first = io;
    b->last = io;
    pthread_mutex_unlock(&b->lock);
    if (b->wake != NULL)
        ps_wake_ring(b->wake);
}

struct wk_tier_io *wk_tier_take(struct wk_tier_inbox *b)
{
    struct wk_tier_io *io;

    pthread_mutex_lock(&b->lock);
    io = b->first;
    if (io != NULL) {
        b->first = io->next;
        if (b->first == NULL)
            b->last = NULL;
    }
    pthread_mutex_unlock(&b->lock);
    if (io != NULL)
        io->next = NULL;
    return io;
}

void wk_kv_root_digest(uint64_t space_id, uint64_t seed, uint8_t out[PS_SHA256_BYTES])
{
    uint8_t b[13 + 2 * 8];

    memcpy(b, "penstock kv 1", 13);
    for (uint32_t i = 0; i < 8; i++) {
        b[13 + i] = (uint8_t)(space_id >> (8 * i));
        b[21 + i] = (uint8_t)(seed >> (8 * i));
    }
    ps_sha256(b, sizeof(b), out);
}

void wk_kv_digest(const uint8_t parent[PS_SHA256_BYTES], const uint32_t *ids, uint32_t n_ids,
                  uint8_t out[PS_SHA256_BYTES])
{
    uint8_t b[PS_SHA256_BYTES + 4 * WK_KV_PAGE_TOKENS_MAX];

    PS_ASSERT(n_ids <= WK_KV_PAGE_TOKENS_MAX);
    memcpy(b, parent, PS_SHA256_BYTES);
    for (uint32_t i = 0; i < n_ids; i++) {
        for (uint32_t k = 0; k < 4; k++)
            b[PS_SHA256_BYTES + 4 * i + k] = (uint8_t)(ids[i] >> (8 * k));
    }
    ps_sha256(b, PS_SHA256_BYTES + (size_t)4 * n_ids, out);
}
