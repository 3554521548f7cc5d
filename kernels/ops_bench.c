#include "kernels/ops_world.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "kernels/cpu/threads.h"

/* Read by the probe and used as weights: far more than any cache holds. */
enum { ARENA_BYTES = 512 << 20, REPEAT = 7 };

typedef uint64_t words __attribute__((vector_size(32)));

struct bench {
    const struct kn_backend *b;
    struct kn_dev *d;
    struct ps_clock clock;
    struct world w;
    uint8_t *arena;
    size_t arena_at;
    double probe; /* bytes per second */
    const char *isa;
};

struct probe {
    const uint8_t *arena;
    uint32_t n_thread;
    uint64_t sum[KN_POOL_MAX];
};

static void read_share(void *ud, uint32_t tid)
{
    struct probe *p = ud;
    size_t n = ARENA_BYTES / sizeof(words) / p->n_thread / 8 * 8;
    const words *v = (const words *)(const void *)p->arena + tid * n;
    words s[8] = {{0}};

    for (size_t i = 0; i < n; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] += v[i + j];
    for (size_t j = 0; j < 8; j++)
        for (size_t k = 0; k < 4; k++)
            p->sum[tid] += s[j][k];
}

/* Bytes per second of the best of a few streams over the arena by all threads. */
static double read_bandwidth(const struct bench *b, uint32_t n_thread)
{
    struct probe *p = ps_calloc(1, sizeof *p);
    struct kn_pool *pool;
    uint64_t best = UINT64_MAX;

    p->arena = b->arena;
    p->n_thread = n_thread;
    PS_ASSERT(kn_pool_create(&pool, n_thread) == 0);
    for (int i = 0; i < REPEAT; i++) {
        uint64_t t = ps_now_us(&b->clock);

        kn_pool_run(pool, read_share, p);
        best = ps_min_u64(best, ps_now_us(&b->clock) - t);
    }
    kn_pool_destroy(pool);
    printf("# read probe: %u threads, %.1f GB/s (sum %llu)\n", n_thread,
           ARENA_BYTES / (double)best / 1e3, (unsigned long long)p->sum[0]);
    ps_free(p);
    return ARENA_BYTES / (double)best * 1e6;
}

static void report(const struct bench *b, const char *what, uint64_t us, double n_byte,
                   double n_flop)
{
    double s = (double)ps_max_u64(us, 1) * 1e-6; /* the clock's step */

    printf("%-44s %-7s %9llu us %7.1f GB/s (%3.0f %% of probe) %8.1f GFLOP/s\n", what, b->isa,
           (unsigned long long)us, n_byte / s / 1e9, 100 * n_byte / s / b->probe, n_flop / s / 1e9);
}

/* The next n_bytes of the arena: cold, because the arena is larger than the caches. */
static const void *cold(struct bench *b, size_t n_bytes)
{
    if (b->arena_at + n_bytes > ARENA_BYTES)
        b->arena_at = 0;
    b->arena_at += n_bytes;
    return b->arena + b->arena_at - n_bytes;
}

static void bench_linear(struct bench *b, enum kn_dtype t, uint32_t n, uint32_t k, uint32_t m)
{
    size_t n_bytes = kn_mat_bytes(t, n, k);
    void *x = world_values(&b->w, t == KN_BF16 ? KN_BF16 : KN_F32, (size_t)m * k, MODERATE);
    float *out = ps_alloc((size_t)m * n * sizeof *out);
    uint64_t best = UINT64_MAX;
    char what[80];

    for (int i = 0; i < (m > 16 ? 3 : REPEAT); i++) {
        struct kn_mat w = {cold(b, n_bytes), t, n, k};
        uint64_t at = ps_now_us(&b->clock);

        PS_ASSERT(b->b->ops->linear(b->d, &w, NULL, x, k, m, out) == KN_OK);
        best = ps_min_u64(best, ps_now_us(&b->clock) - at);
    }
    (void)snprintf(what, sizeof what, "linear %s n %u k %u rows %u", dtype_name(t), n, k, m);
    report(b, what, best, (double)n_bytes, 2.0 * n * k * m);
    ps_free(out);
    guard_free_all();
}

static void bench_attn(struct bench *b, uint32_t n_seq, uint32_t pos0, uint32_t n_q)
{
    enum { D = 128, Q_HEADS = 32, KV_HEADS = 8 };
    struct kn_attn_args a = {.n_q_head = Q_HEADS,
                             .n_kv_head = KV_HEADS,
                             .d_head = D,
                             .n_seq = n_seq,
                             .scale = 0.088f,
                             .out_type = KN_BF16};
    struct kn_seq *seqs = guard_new(n_seq * sizeof *seqs);
    uint32_t *len = guard_new(n_seq * sizeof *len);
    struct world_kv kv;
    void *arena;
    uint64_t best = UINT64_MAX;
    char what[80];

    for (uint32_t s = 0; s < n_seq; s++) {
        len[s] = pos0 + n_q;
        seqs[s] = (struct kn_seq){s * n_q, n_q, pos0, s, 0};
    }
    kv = world_kv(&b->w, KN_BF16, 4, KV_HEADS, D, len, n_seq, true);
    a.kv = kv.view;
    PS_ASSERT(b->b->mem_alloc(b->d, kv.arena_bytes, &arena) ==
              KN_OK); /* huge pages, as when serving */
    memcpy(arena, kv.view.arena, kv.arena_bytes);
    a.kv.arena = arena;
    a.seqs = seqs;
    a.q = world_values(&b->w, KN_F32, (size_t)n_seq * n_q * Q_HEADS * D, MODERATE);
    a.out = guard_new((size_t)n_seq * n_q * Q_HEADS * D * sizeof(uint16_t));
    for (int i = 0; i < REPEAT; i++) {
        uint64_t at = ps_now_us(&b->clock);

        PS_ASSERT(b->b->ops->attn(b->d, &a) == KN_OK);
        best = ps_min_u64(best, ps_now_us(&b->clock) - at);
    }
    (void)snprintf(what, sizeof what, "attn %u seq pos %u q %u (32/8 x 128)", n_seq, pos0, n_q);
    report(b, what, best, (double)n_seq * (pos0 + n_q) * KV_HEADS * D * 2 * 2,
           4.0 * n_seq * n_q * Q_HEADS * D * (pos0 + n_q / 2.0));
    b->b->mem_free(b->d, arena, kv.arena_bytes);
    guard_free_all();
}

static void bench_rows(struct bench *b, uint32_t n, uint32_t dim)
{
    float *x = world_values(&b->w, KN_F32, (size_t)n * dim * 2, MODERATE),
          *wt = world_values(&b->w, KN_F32, dim, MODERATE);
    void *out = guard_new((size_t)n * dim * 2);
    uint64_t best[2] = {UINT64_MAX, UINT64_MAX};
    char what[80];

    for (int i = 0; i < REPEAT; i++) {
        uint64_t at = ps_now_us(&b->clock), mid;

        PS_ASSERT(b->b->ops->add_norm(b->d, x, NULL, wt, 1e-6f, n, dim, out, KN_BF16) == KN_OK);
        mid = ps_now_us(&b->clock);
        PS_ASSERT(b->b->ops->silu_mul(b->d, x, n, dim, out, KN_BF16) == KN_OK);
        best[0] = ps_min_u64(best[0], mid - at);
        best[1] = ps_min_u64(best[1], ps_now_us(&b->clock) - mid);
    }
    (void)snprintf(what, sizeof what, "add_norm rows %u dim %u", n, dim);
    report(b, what, best[0], 10.0 * n * dim, 0);
    (void)snprintf(what, sizeof what, "silu_mul rows %u dim %u", n, dim);
    report(b, what, best[1], 10.0 * n * dim, 0);
    guard_free_all();
}

static void bench_isa(struct bench *b, uint32_t n_thread)
{
    static const uint32_t rows[] = {1, 2, 4, 16, 64, 256};
    struct kn_dev_conf conf = {.n_threads = n_thread, .isa = b->isa};

    if (b->b->open(&b->d, &conf) != KN_OK) {
        printf("# skip: no %s\n", b->isa);
        return;
    }
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++)
        bench_linear(b, KN_BF16, 12288, 4096, rows[i]);
    bench_linear(b, KN_BF16, 3072, 1024, 1);
    bench_linear(b, KN_BF16, 151936, 1024, 1);
    bench_linear(b, KN_F16, 12288, 4096, 1);
    bench_linear(b, KN_F32, 6144, 4096, 1);
    bench_linear(b, KN_F32, 6144, 4096, 64);
    bench_attn(b, 1, 16383, 1);
    bench_attn(b, 8, 4095, 1);
    bench_attn(b, 1, 0, 256);
    bench_attn(b, 1, 4096, 256);
    bench_rows(b, 1, 4096);
    bench_rows(b, 256, 4096);
    b->b->close(b->d);
}

int ops_bench(void)
{
    static const char *const isa[] = {"avx2", "avx512", "amx"};
    long n_cpu = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n_thread = (uint32_t)(n_cpu < 1 ? 1 : n_cpu);
    struct bench b = {.b = kn_backend_cpu()};
    struct kn_dev_conf conf = {.n_threads = 1, .isa = "scalar"};
    struct kn_dev *d;
    void *arena;

    PS_ASSERT(b.b->open(&d, &conf) == KN_OK && b.b->mem_alloc(d, ARENA_BYTES, &arena) == KN_OK);
    ps_clock_real(&b.clock);
    ps_rng_seed(&b.w.rng, 1);
    b.arena = arena;
    for (size_t i = 0; i < ARENA_BYTES; i += 2) /* bf16 numbers near 1 */
        memcpy(b.arena + i, &(uint16_t){(uint16_t)(0x3f80 + (i >> 1) % 61)}, 2);
    for (size_t i = 0; i < PS_ARRAY_LEN(isa); i++) {
        b.isa = isa[i];
        b.probe = read_bandwidth(&b, n_thread);
        bench_isa(&b, n_thread);
    }
    b.b->mem_free(d, arena, ARENA_BYTES);
    b.b->close(d);
    return 0;
}
