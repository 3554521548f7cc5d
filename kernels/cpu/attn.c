#include "kernels/cpu/cpu.h"

#include <stdatomic.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/fp.h"
#include "kernels/host.h"

/* Multiply-adds below which one thread is faster than waking the others. */
enum { ALONE_MACS = 1 << 18 };

/* A block, or one split of it. states: where its states begin, in floats (part mode). */
struct unit {
    struct kn_attn_block b;
    size_t states;
};

struct job {
    const struct kn_isa *isa;
    struct kn_pool *pool;
    struct unit *units;
    float *states, *scratch;
    size_t scratch_floats; /* of one thread */
    uint32_t n_unit;
    bool parts;
    _Atomic uint32_t next, next_merge;
};

static void run_unit(const struct job *j, const struct unit *u, float *scratch)
{
    struct kn_attn_block b = u->b;
    uint32_t group = b.a->n_q_head / b.a->n_kv_head;

    b.scratch = scratch;
    if (j->parts)
        j->isa->attn_part(&b, j->states + u->states);
    else if (j->isa->attn)
        j->isa->attn(&b);
    else
        for (uint32_t r = 0; r < b.n_q * group; r++)
            kn_ref_attn_row(b.a, b.seq, b.i0 + r / group, b.kv_head * group + r % group);
}

static void work(void *ud, uint32_t tid)
{
    struct job *j = ud;
    float *scratch = j->scratch + tid * j->scratch_floats;
    uint32_t i;

    while ((i = atomic_fetch_add(&j->next, 1)) < j->n_unit)
        run_unit(j, &j->units[i], scratch);
    if (!j->parts)
        return;
    kn_pool_barrier(j->pool);
    while ((i = atomic_fetch_add(&j->next_merge, 1)) < j->n_unit)
        if (j->units[i].b.split0 == 0)
            j->isa->attn_merge(&j->units[i].b, j->states + j->units[i].states);
}

/* What the step's work amounts to when blocks have n_q tokens. */
struct extent {
    size_t n_block, n_part, state_rows;
    uint32_t n_row_max, n_split_max;
    uint64_t macs;
};

static uint32_t splits_of(const struct kn_seq *s, uint32_t end)
{
    return (s->pos0 + end + KN_ATTN_SPLIT - 1) / KN_ATTN_SPLIT;
}

static struct extent measure(const struct kn_attn_args *a, uint32_t block_q)
{
    uint32_t group = a->n_q_head / a->n_kv_head;
    struct extent e = {0};

    for (uint32_t s = 0; s < a->n_seq; s++)
        for (uint32_t i = 0; i < a->seqs[s].n_q; i += block_q) {
            uint32_t n_q = ps_min_u32(block_q, a->seqs[s].n_q - i),
                     n = splits_of(&a->seqs[s], i + n_q);

            e.n_block += a->n_kv_head;
            e.n_part += (size_t)a->n_kv_head * n;
            e.state_rows += (size_t)a->n_kv_head * n * n_q * group;
            e.n_row_max = ps_max_u32(e.n_row_max, n_q * group);
            e.n_split_max = ps_max_u32(e.n_split_max, n);
            e.macs += (uint64_t)n_q * a->n_q_head * a->d_head * 2 * (a->seqs[s].pos0 + i + n_q);
        }
    return e;
}

static void lay_out(struct job *j, const struct kn_attn_args *a, uint32_t block_q)
{
    uint32_t group = a->n_q_head / a->n_kv_head, step = kn_attn_state_floats(a->d_head);
    size_t states = 0;

    for (uint32_t s = 0; s < a->n_seq; s++)
        for (uint32_t i = 0; i < a->seqs[s].n_q; i += block_q) {
            struct kn_attn_block b = {.a = a, .seq = &a->seqs[s], .i0 = i};
            uint32_t n;

            b.n_q = ps_min_u32(block_q, b.seq->n_q - i);
            n = splits_of(b.seq, i + b.n_q);
            for (b.kv_head = 0; b.kv_head < a->n_kv_head; b.kv_head++)
                for (b.split0 = 0; b.split0 < (j->parts ? n : 1); b.split0++) {
                    b.split1 = n;
                    j->units[j->n_unit++] = (struct unit){b, states};
                    states += (size_t)b.n_q * group * step;
                }
        }
}

int kn_cpu_attn(struct kn_dev *d, const struct kn_attn_args *a)
{
    uint32_t group = a->n_q_head / a->n_kv_head, n_thread = kn_pool_size(d->pool);
    uint32_t block_q = ps_max_u32(1, KN_ATTN_ROWS / group), fp;
    struct extent e = measure(a, block_q);
    struct job j = {.isa = d->isa, .pool = d->pool};
    size_t n_unit, unit_bytes, state_floats;
    uint8_t *room;

    PS_ASSERT(a->n_q_head % a->n_kv_head == 0 && a->d_head <= KN_HEAD_MAX && a->d_head % 2 == 0);
    /* Whole blocks when there are enough of them to go round, else each split is a unit. */
    j.parts = d->isa->attn && n_thread > 1 && e.n_split_max > 1 && e.n_block < 4 * (size_t)n_thread;
    j.scratch_floats =
        (kn_attn_scratch_floats(a->d_head, e.n_row_max) + KN_LANES - 1) / KN_LANES * KN_LANES;
    state_floats = j.parts ? e.state_rows * kn_attn_state_floats(a->d_head) : 0;
    n_unit = j.parts ? e.n_part : e.n_block;
    unit_bytes = ps_div_up_u64(n_unit * sizeof *j.units, PS_CACHE_LINE) * PS_CACHE_LINE;
    room = kn_host_scratch(d, unit_bytes +
                                  (state_floats + n_thread * j.scratch_floats) * sizeof(float));
    j.units = (struct unit *)(void *)room;
    j.states = (float *)(void *)(room + unit_bytes);
    j.scratch = j.states + state_floats;
    lay_out(&j, a, block_q);
    PS_ASSERT(j.n_unit == n_unit);
    fp = kn_fp_enter();
    if (e.macs < ALONE_MACS && !j.parts)
        for (uint32_t i = 0; i < j.n_unit; i++)
            run_unit(&j, &j.units[i], j.scratch);
    else
        kn_pool_run(d->pool, work, &j);
    kn_fp_leave(fp);
    return KN_OK;
}
