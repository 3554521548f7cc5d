#include "kernels/cpu/cpu.h"

#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/fp.h"
#include "kernels/host.h"

/* Elements below which one thread is faster than waking the others. */
enum { ALONE = 1 << 15 };

struct job {
    struct kn_dev *d;
    uint32_t n;
    void (*share)(const struct job *j, uint32_t row0, uint32_t row1);
    const void *args;
    const uint32_t *ids;
    const float *in;
    void *out;
    uint32_t dim;
    enum kn_dtype out_type;
};

static void work(void *ud, uint32_t tid)
{
    const struct job *j = ud;
    uint64_t n_thread = kn_pool_size(j->d->pool);

    j->share(j, (uint32_t)(j->n * tid / n_thread), (uint32_t)(j->n * (tid + 1ull) / n_thread));
}

/* Rows [0, n) of about row_size elements each. */
static int run(struct job *j, uint64_t row_size)
{
    uint32_t fp = kn_fp_enter();

    if (j->n * row_size < ALONE || j->n == 1)
        j->share(j, 0, j->n);
    else
        kn_pool_run(j->d->pool, work, j);
    kn_fp_leave(fp);
    return KN_OK;
}

static void share_norm(const struct job *j, uint32_t row0, uint32_t row1)
{
    j->d->isa->norm_rows(j->args, row0, row1);
}

int kn_cpu_add_norm(struct kn_dev *d, float *x, const float *delta, const float *w, float eps,
                    uint32_t n, uint32_t dim, void *out, enum kn_dtype out_type)
{
    struct kn_add_norm a = {x, delta, w, eps, dim, out, out_type};
    struct job j = {.d = d, .n = n, .share = share_norm, .args = &a};

    return run(&j, dim);
}

static void share_silu(const struct job *j, uint32_t row0, uint32_t row1)
{
    j->d->isa->silu_rows(j->in, j->dim, j->out, j->out_type, row0, row1);
}

int kn_cpu_silu_mul(struct kn_dev *d, const float *gu, uint32_t n, uint32_t dim, void *out,
                    enum kn_dtype out_type)
{
    struct job j = {.d = d,
                    .n = n,
                    .share = share_silu,
                    .in = gu,
                    .out = out,
                    .dim = dim,
                    .out_type = out_type};

    return run(&j, dim);
}

static void share_embed(const struct job *j, uint32_t row0, uint32_t row1)
{
    const struct kn_mat *table = j->args;

    for (size_t i = row0; i < row1; i++)
        kn_ref_embed_row(table, j->ids[i], (float *)j->out + i * table->k);
}

int kn_cpu_embed(struct kn_dev *d, const struct kn_mat *table, const uint32_t *ids, uint32_t n,
                 float *out)
{
    struct job j = {.d = d, .n = n, .share = share_embed, .args = table, .ids = ids, .out = out};

    return run(&j, table->k);
}

/* Rows are the step's tokens, sequence after sequence. */
static void share_qkv(const struct job *j, uint32_t row0, uint32_t row1)
{
    const struct kn_qkv_args *a = j->args;
    uint32_t first = 0;

    for (uint32_t s = 0; s < a->n_seq; first += a->seqs[s++].n_q)
        for (uint32_t i = ps_max_u32(row0, first); i < ps_min_u32(row1, first + a->seqs[s].n_q);
             i++)
            j->d->isa->qkv_row(a, &a->seqs[s], i - first);
}

int kn_cpu_qkv_rope_write(struct kn_dev *d, const struct kn_qkv_args *a)
{
    struct job j = {.d = d, .share = share_qkv, .args = a};

    for (uint32_t s = 0; s < a->n_seq; s++)
        j.n += a->seqs[s].n_q;
    return run(&j, (uint64_t)(a->n_q_head + 2 * a->n_kv_head) * a->d_head);
}
