/*
 * logits_tool MODEL_DIR BACKEND ISA THREADS CHUNK: the forward pass alone, for comparison with a reference.
 *
 * Reads frames {u32 n_ids, u32 n_gen, u32 ids[n_ids]} from standard input, little-endian. For each it
 * writes the f32 logits of every prompt position [n_ids][n_vocab], then n_gen greedy token ids (u32).
 * Exits 77 when the machine lacks the instruction set.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/buf.h"
#include "worker/model/model.h"

enum { MAX_TOKENS = 8192, MAX_CHUNK = 512, SKIPPED = 77 };

struct run {
    struct wk_model *model;
    const struct kn_backend *be;
    struct kn_dev *dev;
    uint8_t *arena;
    uint32_t *table; /* page i of the one sequence is page i of the arena */
    uint32_t n_pages, n_vocab, chunk;
    float *logits; /* [chunk, n_vocab] */
    uint32_t rows[MAX_CHUNK];
};

PS_NORETURN static void die(const char *what)
{
    (void)fprintf(stderr, "logits_tool: %s\n", what);
    exit(1);
}

static void open_run(struct run *t, char **argv)
{
    struct kn_dev_conf conf = {.isa = argv[3], .n_threads = (uint32_t)strtoul(argv[4], NULL, 10)};
    const struct wk_kv_layout *layout;
    struct ps_buf err = PS_BUF_INIT;
    uint32_t i;
    int r;

    t->chunk = (uint32_t)strtoul(argv[5], NULL, 10);
    if (t->chunk == 0 || t->chunk > MAX_CHUNK)
        die("chunk is 1 to 512");
    if (wk_model_load(&t->model, argv[1], &err) != WK_MODEL_OK)
        die(err.data);
    t->be = strcmp(argv[2], "ref") == 0 ? kn_backend_ref() : kn_backend_cpu();
    r = t->be->open(&t->dev, &conf);
    if (r == KN_E_UNSUPPORTED)
        exit(SKIPPED);
    if (r != 0)
        die("the device cannot be opened");
    layout = wk_model_layout(t->model);
    t->n_pages = MAX_TOKENS / layout->group[0].page_tokens;
    t->n_vocab = wk_model_config(t->model)->n_vocab;
    t->table = ps_calloc(t->n_pages, sizeof(t->table[0]));
    for (i = 0; i < t->n_pages; i++)
        t->table[i] = i;
    if (t->be->mem_alloc(t->dev, (size_t)t->n_pages * layout->group[0].item_bytes,
                         (void **)&t->arena) != 0 ||
        t->be->mem_alloc(t->dev, (size_t)t->chunk * t->n_vocab * sizeof(float),
                         (void **)&t->logits) != 0 ||
        wk_model_bind(t->model, t->be, t->dev, t->arena, t->chunk) != 0)
        die("no memory");
    for (i = 0; i < t->chunk; i++)
        t->rows[i] = i;
    ps_buf_fini(&err);
}

static void step(struct run *t, const uint32_t *ids, uint32_t n, uint32_t pos)
{
    const struct kn_seq seq = {.n_q = n, .pos0 = pos};
    const struct wk_forward f = {.ids = ids,
                                 .n_tok = n,
                                 .seqs = &seq,
                                 .n_seq = 1,
                                 .table = t->table,
                                 .table_stride = t->n_pages,
                                 .out_rows = t->rows,
                                 .n_out = n};

    if (wk_model_forward(t->model, &f) != 0 || wk_model_logits(t->model, 0, n, t->logits) != 0 ||
        t->be->sync(t->dev) != 0)
        die("the step failed");
}

static uint32_t greedy(struct run *t, const float *logits, uint32_t pos)
{
    const struct kn_samp s = {
        .top_p = 1.0f, .rep_penalty = 1.0f, .pos = pos, .n_vocab_valid = t->n_vocab, .n_top = -1};
    struct kn_samp_out out;

    if (t->be->ops->sample(t->dev, logits, 1, t->n_vocab, &s, &out) != 0 || out.fault != 0)
        die("sampling failed");
    return out.token;
}

static void serve_one(struct run *t, const uint32_t *ids, uint32_t n, uint32_t n_gen)
{
    uint32_t pos, k, i, token = 0;

    for (pos = 0; pos < n; pos += k) {
        k = ps_min_u32(t->chunk, n - pos);
        step(t, ids + pos, k, pos);
        if (fwrite(t->logits, sizeof(float), (size_t)k * t->n_vocab, stdout) !=
            (size_t)k * t->n_vocab)
            die("write");
        token = greedy(t, t->logits + (size_t)(k - 1) * t->n_vocab, pos + k);
    }
    for (i = 0; i < n_gen; i++) {
        if (fwrite(&token, sizeof(token), 1, stdout) != 1)
            die("write");
        if (i + 1 < n_gen) {
            step(t, &token, 1, n + i);
            token = greedy(t, t->logits, n + i + 1);
        }
    }
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    static uint32_t ids[MAX_TOKENS];
    uint32_t head[2];
    struct run t = {0};

    if (argc != 6)
        die("usage: logits_tool MODEL_DIR cpu|ref ISA THREADS CHUNK");
    open_run(&t, argv);
    while (fread(head, sizeof(head), 1, stdin) == 1) {
        if (head[0] == 0 || head[0] + head[1] > MAX_TOKENS ||
            fread(ids, 4, head[0], stdin) != head[0])
            die("bad frame");
        serve_one(&t, ids, head[0], head[1]);
    }
    wk_model_destroy(t.model);
    t.be->mem_free(t.dev, t.logits, (size_t)t.chunk * t.n_vocab * sizeof(float));
    t.be->close(t.dev);
    ps_free(t.table);
    return 0;
}
