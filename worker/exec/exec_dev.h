#pragma once

/*
 * exec_dev: runs a model's steps on one device, in a thread of its own.
 *
 * The thread owns the device, the weights, the KV arena and the slots; the scheduler only enqueues
 * plans and polls results. Create loads (or maps) the weights and sizes the arena from kv_bytes.
 */

#include "worker/exec/exec.h"
#include "worker/kv/layout.h"
#include "worker/model/model.h"

struct wk_exec_dev_conf {
    const struct kn_backend *backend;
    struct kn_dev_conf dev;
    uint64_t kv_bytes;  /* budget of the KV arena */
    uint32_t n_slots;   /* sequences that can be resident at once */
    uint32_t n_tok_max; /* tokens of a step: sizes the activation buffers */
};

/* Takes the model (move_m) on success. err explains a positive or negative return. */
PS_MUST int wk_exec_dev_create(struct wk_exec **out, struct wk_model *move_m,
                               const struct wk_exec_dev_conf *conf, struct ps_buf *err);
