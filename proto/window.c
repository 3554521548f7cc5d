#include "proto/window.h"

#include <string.h>

static uint64_t *word_of(struct pb_window *w, uint64_t seq)
{
    return &w->bits[(seq % PB_WINDOW) / 64];
}

void pb_window_clear(struct pb_window *w)
{
    memset(w, 0, sizeof(*w));
}

bool pb_window_has(const struct pb_window *w, uint64_t seq)
{
    if (seq > w->high)
        return false;
    if (w->high - seq >= PB_WINDOW)
        return true;
    return (w->bits[(seq % PB_WINDOW) / 64] >> (seq % 64)) & 1;
}

void pb_window_mark(struct pb_window *w, uint64_t seq)
{
    PS_ASSERT(seq > 0);
    if (seq > w->high) {
        if (seq - w->high >= PB_WINDOW) {
            memset(w->bits, 0, sizeof(w->bits));
        } else { /* numbers between are not applied: their bits are of an older turn */
            for (uint64_t s = w->high + 1; s <= seq; s++)
                *word_of(w, s) &= ~(1ULL << (s % 64));
        }
        w->high = seq;
    }
    if (w->high - seq < PB_WINDOW)
        *word_of(w, seq) |= 1ULL << (seq % 64);
}
