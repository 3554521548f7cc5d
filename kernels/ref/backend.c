#include "kernels/ref/ref.h"

#include <stdio.h>

#include "kernels/host.h"

static int open_ref(struct kn_dev **out, const struct kn_dev_conf *conf PS_UNUSED)
{
    struct kn_dev *d = ps_calloc(1, sizeof *d);

    (void)snprintf(d->text, sizeof d->text, "reference order, 1 thread");
    *out = d;
    return KN_OK;
}

static void close_ref(struct kn_dev *d)
{
    if (d)
        ps_free(d->scratch);
    ps_free(d);
}

static const struct kn_ops ops = {
    .size = sizeof(struct kn_ops),
    .version = KN_OPS_VERSION,
    .embed = kn_ref_embed,
    .add_norm = kn_ref_add_norm,
    .linear = kn_ref_linear,
    .qkv_rope_write = kn_ref_qkv_rope_write,
    .attn = kn_ref_attn,
    .silu_mul = kn_ref_silu_mul,
    .gather_rows = kn_ref_gather_rows,
    .sample = kn_ref_sample,
    .score = kn_ref_score,
};

static const struct kn_backend backend = {
    .size = sizeof(struct kn_backend),
    .version = KN_BACKEND_VERSION,
    .name = "ref",
    .open = open_ref,
    .close = close_ref,
    .arith_id = kn_host_arith_id,
    .describe = kn_host_describe,
    .mem_alloc = kn_host_mem_alloc,
    .mem_free = kn_host_mem_free,
    .to_dev = kn_host_copy,
    .to_host = kn_host_copy,
    .copy = kn_host_copy,
    .sync = kn_host_sync,
    .ops = &ops,
};

const struct kn_backend *kn_backend_ref(void)
{
    return &backend;
}
