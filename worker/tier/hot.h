#pragma once

/*
 * The copier: moves items between T0 (the device's arena) and T1 (the host's), and changes their
 * format on the way. GET is T0 -> buf (encode), PUT is buf -> T0 (decode); part.slot names the item
 * of T0. One thread; memory never hangs, so its moves always end.
 */

#include "worker/exec/exec.h"
#include "worker/kv/format.h"
#include "worker/tier/tier.h"

struct wk_tier_hot_conf {
    struct wk_exec *exec;
    const struct wk_kv_format *format; /* both outlive the tier */
    const struct wk_kv_layout *layout;
    struct wk_tier_inbox *inbox;
    const struct ps_clock *clock;
    bool no_thread;
};

/* NULL: no thread can be started. */
struct wk_tier *wk_tier_hot_create(const struct wk_tier_hot_conf *conf);
