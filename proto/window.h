#pragma once

/*
 * Which dispatch numbers a worker has applied: the filter for late copies of an old Submit.
 *
 * A bitmap over the last PB_WINDOW numbers of one router incarnation; everything older counts as
 * applied, so a copy that is late beyond the window is refused too. Owned by one thread.
 */

#include "common/base.h"

enum { PB_WINDOW = 8192 };

struct pb_window {
    uint64_t high; /* highest number applied; 0: none */
    uint64_t bits[PB_WINDOW / 64];
};

void pb_window_clear(struct pb_window *w);
bool pb_window_has(const struct pb_window *w, uint64_t seq);
void pb_window_mark(struct pb_window *w, uint64_t seq); /* seq > 0 */
