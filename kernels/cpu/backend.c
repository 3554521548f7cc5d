#include "kernels/cpu/cpu.h"

#include <stdio.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/host.h"

static void close_cpu(struct kn_dev *d)
{
    if (d) {
        kn_pool_destroy(d->pool);
        ps_free(d->scratch);
    }
    ps_free(d);
}

static int open_cpu(struct kn_dev **out, const struct kn_dev_conf *conf)
{
    uint32_t n_threads = ps_min_u32(ps_max_u32(conf->n_threads, 1), KN_POOL_MAX);
    struct kn_dev *d;
    const char *note;
    int r;

    /* Before the threads: the permission to use tiles is asked for by then. */
    const struct kn_isa *isa = kn_isa_pick(conf->isa ? conf->isa : "", &note);

    if (isa == NULL)
        return KN_E_UNSUPPORTED;
    d = ps_calloc(1, sizeof *d);
    d->isa = isa;
    r = kn_pool_create(&d->pool, n_threads);
    if (r != 0) {
        close_cpu(d);
        return r;
    }
    (void)snprintf(d->text, sizeof d->text, "%s%s, %u thread%s", isa->name, note, n_threads,
                   n_threads == 1 ? "" : "s");
    *out = d;
    return KN_OK;
}

static const struct kn_ops ops = {
    .size = sizeof(struct kn_ops),
    .version = KN_OPS_VERSION,
    .embed = kn_cpu_embed,
    .add_norm = kn_cpu_add_norm,
    .linear = kn_cpu_linear,
    .qkv_rope_write = kn_cpu_qkv_rope_write,
    .attn = kn_cpu_attn,
    .silu_mul = kn_cpu_silu_mul,
    .gather_rows = kn_ref_gather_rows, /* copies only */
    .sample = kn_cpu_sample,
    .score = kn_cpu_score,
};

static const struct kn_backend backend = {
    .size = sizeof(struct kn_backend),
    .version = KN_BACKEND_VERSION,
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
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

const struct kn_backend *kn_backend_cpu(void)
{
    return &backend;
}
