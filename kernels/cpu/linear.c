#include "kernels/cpu/cpu.h"

#include <stdatomic.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/fp.h"
#include "kernels/host.h"

enum {
    SHARES = 16, /* per thread: fine enough for a busy neighbour, still long streams of memory */
    ALONE_MACS = 1 << 15, /* below, waking the threads costs more than they save */
};

struct job {
    struct kn_lin l;
    const struct kn_lin_path *path;
    struct kn_pool *pool;
    float *acc;
    size_t acc_floats; /* of one thread */
    uint32_t n_panel, share;
    _Atomic uint32_t next;
};

static void work(void *ud, uint32_t tid)
{
    struct job *j = ud;
    uint32_t n_thread = kn_pool_size(j->pool), p;

    if (j->path->enter)
        j->path->enter();
    if (j->l.n_tile > 1) {
        for (uint32_t t = tid; t < j->l.n_tile; t += n_thread)
            j->path->pack(&j->l, t);
        kn_pool_barrier(j->pool);
    }
    while ((p = atomic_fetch_add(&j->next, j->share)) < j->n_panel)
        j->path->run(&j->l, p, ps_min_u32(p + j->share, j->n_panel), j->acc + tid * j->acc_floats);
    if (j->path->leave)
        j->path->leave();
}

int kn_cpu_linear(struct kn_dev *d, const struct kn_mat *w, const float *bias, const void *x,
                  uint32_t x_stride, uint32_t n_row, float *out)
{
    bool big = d->isa->lin_big.run && w->dtype == KN_BF16 && n_row >= KN_LIN_BIG_ROWS;
    const struct kn_lin_path *path = big ? &d->isa->lin_big : &d->isa->lin;
    uint32_t n_thread = kn_pool_size(d->pool), fp;
    struct job j = {.path = path, .pool = d->pool};
    size_t x_floats;

    PS_ASSERT(x_stride >= w->k);
    if (n_row == 0)
        return KN_OK;
    j.l = (struct kn_lin){
        .w = w, .bias = bias, .x = x, .x_stride = x_stride, .n_row = n_row, .out = out};
    j.l.n_tile = (uint32_t)ps_div_up_u64(n_row, path->tile_rows);
    j.n_panel = (w->n + KN_PANEL - 1) / KN_PANEL;
    j.share = ps_max_u32(j.n_panel / (n_thread * SHARES) / path->unit * path->unit, path->unit);
    /* All multiples of 16 floats, so every part is aligned to a cache line. */
    x_floats = path->elem_bytes ? j.l.n_tile * path->tile_rows * kn_mat_k_pad(w->k) : 0;
    j.acc_floats = ((size_t)n_row + KN_PANEL) * path->unit * KN_PANEL;
    j.l.xp = kn_host_scratch(d, (x_floats + n_thread * j.acc_floats) * sizeof(float));
    j.acc = (float *)j.l.xp + x_floats;
    fp = kn_fp_enter();
    if (path->pack && j.l.n_tile == 1)
        path->pack(&j.l, 0);
    if ((uint64_t)n_row * w->n * w->k < ALONE_MACS && j.l.n_tile == 1)
        path->run(&j.l, 0, j.n_panel, j.acc);
    else
        kn_pool_run(d->pool, work, &j);
    kn_fp_leave(fp);
    return KN_OK;
}
