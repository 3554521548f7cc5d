/*
 * model_bench [DIR]: tokens per second of a Qwen3-0.6B-shaped model with random bf16 weights, and
 * microseconds per sampled row. Markdown on standard output.
 *
 * DIR (default /tmp) needs 1.2 GB for the written model, which is removed again. Every figure is the best
 * of a few repetitions: other programs on the machine only ever make one worse. Beside each decode
 * rate stands the memory traffic of the weights as a share of what a plain read of memory reaches
 * with the same threads, measured in the same run.
 */

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "kernels/cpu/threads.h"
#include "kernels/sample.h"
#include "worker/model/model.h"
#include "worker/model/tiny.h"

enum {
    REPEAT = 8,
    DECODE_STEPS = 3,
    CONTEXT = 256, /* tokens a decoding row has behind it */
    PREFILL = 512,
    CHUNK = 256,
    BATCH_MAX = 8,
    PAGE = 16,
    ROW_PAGES = (PREFILL + PAGE) / PAGE + 1,
    PROBE_BYTES = 512 << 20,
};

static const struct tiny qwen3_06b = {.qwen3 = true,
                                      .tied = true,
                                      .dtype = KN_BF16,
                                      .hidden = 1024,
                                      .n_layer = 28,
                                      .n_head = 16,
                                      .n_kv_head = 8,
                                      .d_head = 128,
                                      .inter = 3072,
                                      .n_vocab = 151936,
                                      .seed = 1};

struct run {
    struct ps_clock clock;
    const struct kn_backend *be;
    struct kn_dev *d;
    struct wk_model *m;
    uint8_t *arena;
    float *logits;
    uint32_t table[BATCH_MAX * ROW_PAGES];
    double probe; /* bytes per second of these threads */
};

typedef uint64_t words __attribute__((vector_size(32)));

struct probe {
    const words *v;
    uint32_t n_threads;
    uint64_t sum[KN_POOL_MAX]; /* so that the reads are not left out */
};

static void read_share(void *ud, uint32_t tid)
{
    struct probe *p = ud;
    size_t n = PROBE_BYTES / sizeof(words) / p->n_threads / 8 * 8, i, j;
    const words *v = p->v + tid * n;
    words s[8] = {{0}};

    for (i = 0; i < n; i += 8) {
        for (j = 0; j < 8; j++)
            s[j] += v[i + j];
    }
    for (j = 0; j < 8; j++)
        p->sum[tid] += s[j][0] + s[j][1] + s[j][2] + s[j][3];
}

static double read_bandwidth(const struct run *t, uint32_t n_threads)
{
    struct probe *p = ps_calloc(1, sizeof(*p));
    uint64_t best = UINT64_MAX;
    struct kn_pool *pool;
    void *mem;

    PS_ASSERT(t->be->mem_alloc(t->d, PROBE_BYTES, &mem) == KN_OK);
    PS_ASSERT(kn_pool_create(&pool, n_threads) == 0);
    memset(mem, 1, PROBE_BYTES);
    *p = (struct probe){.v = mem, .n_threads = n_threads};
    for (int i = 0; i < REPEAT + 2; i++) {
        uint64_t t0 = ps_now_us(&t->clock);

        kn_pool_run(pool, read_share, p);
        best = ps_min_u64(best, ps_now_us(&t->clock) - t0);
    }
    kn_pool_destroy(pool);
    t->be->mem_free(t->d, mem, PROBE_BYTES);
    ps_free(p);
    return PROBE_BYTES / (double)best * 1e6;
}

/* One step: n_seq rows of n_q tokens from pos on, the last of each sampled greedily. */
static void step(struct run *t, uint32_t n_seq, uint32_t n_q, uint32_t pos)
{
    const struct kn_samp greedy = {.top_p = 1.0f,
                                   .rep_penalty = 1.0f,
                                   .n_vocab_valid = wk_model_n_vocab_valid(t->m),
                                   .n_top = -1};
    uint32_t ids[CHUNK], rows[BATCH_MAX], i;
    struct kn_seq seqs[BATCH_MAX];
    struct kn_samp s[BATCH_MAX];
    struct kn_samp_out out[BATCH_MAX];
    struct wk_forward f = {.ids = ids,
                           .n_tok = n_seq * n_q,
                           .seqs = seqs,
                           .n_seq = n_seq,
                           .table = t->table,
                           .table_stride = ROW_PAGES,
                           .out_rows = rows,
                           .n_out = n_seq};

    for (i = 0; i < n_seq * n_q; i++)
        ids[i] = (pos * 31 + i * 7919) % qwen3_06b.n_vocab;
    for (i = 0; i < n_seq; i++) {
        seqs[i] = (struct kn_seq){.tok_off = i * n_q, .n_q = n_q, .pos0 = pos, .table_row = i};
        rows[i] = i * n_q + n_q - 1;
        s[i] = greedy;
    }
    PS_ASSERT(wk_model_forward(t->m, &f) == 0 && wk_model_logits(t->m, 0, n_seq, t->logits) == 0);
    PS_ASSERT(t->be->ops->sample(t->d, t->logits, n_seq, qwen3_06b.n_vocab, s, out) == KN_OK);
    PS_ASSERT(out[0].fault == 0);
}

/* Bytes of weights that every step reads: all matrices; the embedding serves as head. */
static double weight_bytes(void)
{
    const struct tiny *c = &qwen3_06b;
    double layer = (double)(c->n_head + 2 * c->n_kv_head) * c->d_head * c->hidden +
                   (double)c->n_head * c->d_head * c->hidden + 3.0 * c->inter * c->hidden;

    return 2.0 * (layer * c->n_layer + (double)c->n_vocab * c->hidden);
}

static void bench_decode(struct run *t, uint32_t n_threads, uint32_t batch)
{
    uint64_t best = UINT64_MAX;
    double s;

    for (uint32_t pos = 0; pos < CONTEXT; pos += CHUNK / batch) /* so that rows are not zeros */
        step(t, batch, CHUNK / batch, pos);
    for (int r = 0; r < REPEAT; r++) {
        uint64_t t0 = ps_now_us(&t->clock);

        for (uint32_t i = 0; i < DECODE_STEPS; i++)
            step(t, batch, 1, CONTEXT + i);
        best = ps_min_u64(best, ps_now_us(&t->clock) - t0);
    }
    s = (double)best * 1e-6 / DECODE_STEPS;
    printf("| decode, batch %u, context %d | %u | %.1f | %.2f | %.1f | %.0f %% |\n", batch, CONTEXT,
           n_threads, batch / s, s * 1e3, weight_bytes() / s / 1e9,
           100.0 * weight_bytes() / s / t->probe);
    (void)fflush(stdout);
}

static void bench_prefill(struct run *t, uint32_t n_threads)
{
    uint64_t best = UINT64_MAX;
    double s;

    for (int r = 0; r < 3; r++) {
        uint64_t t0 = ps_now_us(&t->clock);

        for (uint32_t pos = 0; pos < PREFILL; pos += CHUNK)
            step(t, 1, CHUNK, pos);
        best = ps_min_u64(best, ps_now_us(&t->clock) - t0);
    }
    s = (double)best * 1e-6;
    printf("| prefill, %d tokens, chunk %d | %u | %.1f | %.0f | %.0f GFLOP/s | |\n", PREFILL, CHUNK,
           n_threads, PREFILL / s, s * 1e3, PREFILL * weight_bytes() / s / 1e9);
    (void)fflush(stdout);
}

static void bench_model(struct run *t, const char *dir, uint32_t n_threads)
{
    struct kn_dev_conf conf = {.n_threads = n_threads, .isa = ""};
    struct ps_buf err = PS_BUF_INIT;
    size_t arena_bytes, logits_bytes = (size_t)BATCH_MAX * qwen3_06b.n_vocab * sizeof(float);

    if (wk_model_load(&t->m, dir, &err) != WK_MODEL_OK) {
        (void)fprintf(stderr, "model_bench: %s\n", err.data);
        exit(1);
    }
    arena_bytes = (size_t)BATCH_MAX * ROW_PAGES * wk_model_layout(t->m)->group[0].item_bytes;
    PS_ASSERT(t->be->open(&t->d, &conf) == KN_OK);
    PS_ASSERT(t->be->mem_alloc(t->d, arena_bytes, (void **)&t->arena) == KN_OK);
    PS_ASSERT(t->be->mem_alloc(t->d, logits_bytes, (void **)&t->logits) == KN_OK);
    PS_ASSERT(wk_model_bind(t->m, t->be, t->d, t->arena, CHUNK) == 0);
    t->probe = 0.0;
    for (int i = 0; i < 3; i++) { /* apart in time, so that one busy neighbour does not set it */
        t->probe = fmax(t->probe, read_bandwidth(t, n_threads));
        step(t, 1, CHUNK, 0);
    }
    printf("| read probe (%s) | %u | | | %.1f | 100 %% |\n", t->be->describe(t->d), n_threads,
           t->probe / 1e9);
    bench_decode(t, n_threads, 1);
    bench_decode(t, n_threads, BATCH_MAX);
    bench_prefill(t, n_threads);
    wk_model_destroy(t->m);
    t->be->mem_free(t->d, t->arena, arena_bytes);
    t->be->mem_free(t->d, t->logits, logits_bytes);
    t->be->close(t->d);
    ps_buf_fini(&err);
}

/* peak: logits of a model that is rather sure; flat: plain normal noise. */
static void random_logits(float *row, uint32_t n, bool peak)
{
    struct ps_rng r;

    ps_rng_seed(&r, 9);
    for (uint32_t i = 0; i < n; i++) {
        double u = 1.0 - ps_rng_unit(&r), v = ps_rng_unit(&r);

        row[i] = (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        if (peak) /* Zipf: the id of rank k is about k^-1.2 as likely as the first */
            row[i] = row[i] * 0.3f - 1.2f * logf((float)i + 1.0f);
    }
}

static void bench_sample(struct run *t, const char *what, bool peak, struct kn_samp s)
{
    enum { ROWS = 20 };
    uint32_t n = qwen3_06b.n_vocab;
    float *row = ps_calloc(n, sizeof(*row));
    uint64_t best = UINT64_MAX;
    struct kn_samp_out out;

    random_logits(row, n, peak);
    s.n_vocab_valid = n;
    s.rep_penalty = 1.0f;
    for (int r = 0; r < REPEAT; r++) {
        uint64_t t0 = ps_now_us(&t->clock);

        for (s.pos = 0; s.pos < ROWS; s.pos++)
            PS_ASSERT(t->be->ops->sample(t->d, row, 1, n, &s, &out) == KN_OK && out.fault == 0);
        best = ps_min_u64(best, ps_now_us(&t->clock) - t0);
    }
    printf("| %s | %s | %.0f |\n", what, peak ? "Zipf" : "flat", (double)best / ROWS);
    ps_free(row);
}

static void bench_sampling(struct run *t)
{
    struct kn_dev_conf conf = {.n_threads = 1, .isa = ""};

    PS_ASSERT(t->be->open(&t->d, &conf) == KN_OK);
    printf("\n| sampling one row of %u (%s) | logits | us |\n|---|---|---|\n", qwen3_06b.n_vocab,
           t->be->describe(t->d));
    for (int peak = 1; peak >= 0; peak--) {
        bench_sample(t, "greedy", peak, (struct kn_samp){.top_p = 1.0f, .n_top = -1});
        bench_sample(t, "greedy, 5 log-probabilities", peak,
                     (struct kn_samp){.top_p = 1.0f, .n_top = 5});
        bench_sample(t, "temperature 1, no filter", peak,
                     (struct kn_samp){.temperature = 1.0f, .top_p = 1.0f, .n_top = -1});
        bench_sample(t, "temperature 1, top_p 0.9", peak,
                     (struct kn_samp){.temperature = 1.0f, .top_p = 0.9f, .n_top = -1});
        bench_sample(
            t, "temperature 0.6, top_k 20, top_p 0.95", peak,
            (struct kn_samp){.temperature = 0.6f, .top_p = 0.95f, .top_k = 20, .n_top = -1});
    }
    t->be->close(t->d);
}

int main(int argc, char **argv)
{
    struct run t = {.be = kn_backend_cpu()};
    char dir[200];

    (void)snprintf(dir, sizeof(dir), "%s/penstock-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    ps_clock_real(&t.clock);
    for (uint32_t i = 0; i < PS_ARRAY_LEN(t.table); i++)
        t.table[i] = (uint32_t)((uint64_t)i * 101 % PS_ARRAY_LEN(t.table));
    bench_sampling(&t);
    if (mkdtemp(dir) == NULL) {
        (void)fprintf(stderr, "model_bench: no directory %s\n", dir);
        return 1;
    }
    tiny_write(dir, &qwen3_06b);
    printf("\n| Qwen3-0.6B shape, bf16 | threads | tok/s | ms per step | GB/s | of the probe |\n"
           "|---|---|---|---|---|---|\n");
    for (uint32_t n_threads = 1; n_threads <= 2; n_threads++)
        bench_model(&t, dir, n_threads);
    tiny_remove(dir);
    return 0;
}
