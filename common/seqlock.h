#pragma once

/*
 * Seqlock: one writer publishes a small struct, any thread copies it without a lock.
 *
 * The payload is kept as 64-bit atomics, so a torn copy is retried and never undefined; on x86 these
 * are ordinary loads and stores. Readers retry while the writer writes, which is a memcpy long.
 * Fences are avoided on purpose: thread sanitizers do not understand them.
 */

#include <stdatomic.h>
#include <string.h>

#include "common/base.h"

#define PS_SEQ_WORDS(type) ((sizeof(type) + 7) / 8)

static inline void ps_seq_write(_Atomic uint64_t *ver, _Atomic uint64_t *words, const void *p,
                                size_t n_bytes)
{
    uint64_t v = atomic_load_explicit(ver, memory_order_relaxed);
    size_t n_words = (n_bytes + 7) / 8;

    PS_DASSERT((v & 1) == 0);
    atomic_store_explicit(ver, v + 1, memory_order_relaxed);
    for (size_t i = 0; i < n_words; i++) {
        uint64_t w = 0;

        memcpy(&w, (const char *)p + 8 * i, ps_min_size(8, n_bytes - 8 * i));
        /* Release: whoever sees the word sees the odd version too. */
        atomic_store_explicit(&words[i], w, memory_order_release);
    }
    atomic_store_explicit(ver, v + 2, memory_order_release);
}

/* False before the first write. */
static inline bool ps_seq_read(const _Atomic uint64_t *ver, const _Atomic uint64_t *words, void *p,
                               size_t n_bytes)
{
    size_t n_words = (n_bytes + 7) / 8;

    for (;;) {
        uint64_t v = atomic_load_explicit(ver, memory_order_acquire);

        if (v == 0)
            return false;
        if (v & 1)
            continue;
        for (size_t i = 0; i < n_words; i++) {
            uint64_t w = atomic_load_explicit(&words[i], memory_order_acquire);

            memcpy((char *)p + 8 * i, &w, ps_min_size(8, n_bytes - 8 * i));
        }
        if (atomic_load_explicit(ver, memory_order_relaxed) == v)
            return true;
    }
}
