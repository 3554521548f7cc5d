/*
 * format_quality MODEL_DIR FORMATS N_TOKENS FILE...: what a KV format costs in quality. Markdown on standard output.
 *
 * FORMATS is a list like fp8,tq4. The files' text is tokenized with the model directory's tokenizer and cut
 * into sequences of 512 tokens; every sequence runs through the model in steps of one page. With a format,
 * each full page is encoded and decoded in place as soon as it is computed: every later token sees all of
 * its context through the format, also beyond what eviction would do. The logits of each position are
 * compared with those of the same run without a format: KL(without || with) in nats, and whether the most
 * likely token is the same. The raw format is run as well and must give the same bits.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/file.h"
#include "common/text/tokenizer.h"
#include "worker/kv/format.h"
#include "worker/model/model.h"

enum { SEQ = 512, FILE_BYTES_MAX = 64 << 20, N_PAGE_MAX = 64 };

struct run {
    struct wk_model *model;
    const struct kn_backend *be;
    struct kn_dev *dev;
    struct ps_tok_ids ids;
    uint8_t *arena, *stored;
    uint32_t table[N_PAGE_MAX], rows[SEQ];
    uint32_t page, n_vocab, item_bytes;
    float *want, *got; /* logits of a sequence, [SEQ, n_vocab] */
};

struct score {
    double kl, worst, nll[2]; /* nll: of the text's next token, without and with the format */
    uint64_t n, n_next, n_same;
};

PS_NORETURN static void die(const char *what)
{
    (void)fprintf(stderr, "format_quality: %s\n", what);
    exit(1);
}

static void read_text(struct run *t, const char *dir, char **files, int n_files, uint32_t n_tokens)
{
    struct ps_buf err = PS_BUF_INIT, text = PS_BUF_INIT;
    struct ps_tok_ctx *ctx;
    struct ps_tok *tok;

    if (ps_tok_load(&tok, dir, &err) != PS_TOK_OK)
        die(err.data);
    ctx = ps_tok_ctx_create(tok);
    for (int i = 0; i < n_files && t->ids.n < n_tokens; i++) {
        ps_buf_clear(&text);
        if (ps_file_read(files[i][0] == '/' ? "" : ".", files[i], FILE_BYTES_MAX, &text) !=
                PS_FILE_OK ||
            ps_tok_encode(ctx, text.data, text.len, 0, 0, &t->ids) != PS_TOK_OK)
            die(files[i]);
    }
    t->ids.n = ps_min_u32(t->ids.n, n_tokens) / SEQ * SEQ;
    if (t->ids.n == 0)
        die("there is less text than one sequence");
    ps_tok_ctx_destroy(ctx);
    ps_tok_destroy(tok);
    ps_buf_fini(&text);
    ps_buf_fini(&err);
}

static void open_model(struct run *t, const char *dir)
{
    struct kn_dev_conf conf = {.isa = "", .n_threads = 1};
    const struct wk_kv_layout *layout;
    struct ps_buf err = PS_BUF_INIT;
    size_t arena_bytes;

    if (wk_model_load(&t->model, dir, &err) != WK_MODEL_OK)
        die(err.data);
    layout = wk_model_layout(t->model);
    t->be = kn_backend_cpu();
    t->page = layout->group[0].page_tokens;
    t->item_bytes = layout->group[0].item_bytes;
    t->n_vocab = wk_model_config(t->model)->n_vocab;
    if (layout->n_group != 1 || SEQ % t->page != 0 || SEQ / t->page > N_PAGE_MAX)
        die("only models with rows of attention and pages of 8 to 512 tokens");
    for (uint32_t i = 0; i < N_PAGE_MAX; i++)
        t->table[i] = i;
    for (uint32_t i = 0; i < SEQ; i++)
        t->rows[i] = i;
    arena_bytes = (size_t)N_PAGE_MAX * t->item_bytes;
    if (t->be->open(&t->dev, &conf) != KN_OK ||
        t->be->mem_alloc(t->dev, arena_bytes, (void **)&t->arena) != KN_OK ||
        wk_model_bind(t->model, t->be, t->dev, t->arena, t->page) != 0)
        die("the device cannot be opened");
    t->stored = ps_alloc_aligned(4096, t->item_bytes);
    t->want = ps_calloc((size_t)SEQ * t->n_vocab, sizeof(float));
    t->got = ps_calloc((size_t)SEQ * t->n_vocab, sizeof(float));
    ps_buf_fini(&err);
}

static void close_model(struct run *t)
{
    wk_model_destroy(t->model);
    t->be->mem_free(t->dev, t->arena, (size_t)N_PAGE_MAX * t->item_bytes);
    t->be->close(t->dev);
    ps_free(t->stored);
    ps_free(t->want);
    ps_free(t->got);
    ps_tok_ids_fini(&t->ids);
}

/* The whole sequence, page by page; f NULL: the pages stay as they are. */
static void run_sequence(struct run *t, const uint32_t *ids, const struct wk_kv_format *f,
                         float *logits)
{
    for (uint32_t pos = 0; pos < SEQ; pos += t->page) {
        const struct kn_seq seq = {.n_q = t->page, .pos0 = pos};
        const struct wk_forward step = {.ids = ids + pos,
                                        .n_tok = t->page,
                                        .seqs = &seq,
                                        .n_seq = 1,
                                        .table = t->table,
                                        .table_stride = N_PAGE_MAX,
                                        .out_rows = t->rows,
                                        .n_out = t->page};
        uint8_t *item = t->arena + (size_t)(pos / t->page) * t->item_bytes;

        if (wk_model_forward(t->model, &step) != 0 ||
            wk_model_logits(t->model, 0, t->page, logits + (size_t)pos * t->n_vocab) != 0 ||
            t->be->sync(t->dev) != 0)
            die("the step failed");
        if (f == NULL)
            continue;
        if (wk_kv_format_encode(f, 0, item, t->stored) != WK_FORMAT_OK)
            die("a page holds what is no number");
        memset(item, 0xff, t->item_bytes); /* NaN: nothing but the stored bytes can come back */
        wk_kv_format_decode(f, 0, t->stored, item);
    }
}

static double log_sum_exp(const float *v, uint32_t n, uint32_t *out_best)
{
    uint32_t best = 0;
    double sum = 0;

    for (uint32_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)v[i] - (double)v[best]);
    *out_best = best;
    return (double)v[best] + log(sum);
}

/* next: the token that the text has after this position; NULL: none. */
static void compare(struct score *s, const float *a, const float *b, uint32_t n,
                    const uint32_t *next)
{
    uint32_t best_a, best_b;
    double za = log_sum_exp(a, n, &best_a), zb = log_sum_exp(b, n, &best_b), kl = 0;

    for (uint32_t i = 0; i < n; i++) {
        double p = (double)a[i] - za;

        kl += exp(p) * (p - ((double)b[i] - zb));
    }
    s->kl += kl;
    s->worst = fmax(s->worst, kl);
    s->n_same += best_a == best_b;
    s->n++;
    if (next != NULL) {
        s->nll[0] += za - (double)a[*next];
        s->nll[1] += zb - (double)b[*next];
        s->n_next++;
    }
}

static void bench(struct run *t, enum wk_kv_codec codec)
{
    uint32_t n = wk_model_n_vocab_valid(t->model);
    struct ps_buf err = PS_BUF_INIT;
    struct wk_kv_format *f;
    struct score s = {0};

    if (wk_kv_format_create(&f, codec, wk_model_layout(t->model), &err) != WK_FORMAT_OK)
        die(err.data);
    for (uint32_t at = 0; at < t->ids.n; at += SEQ) {
        const uint32_t *ids = t->ids.ids + at;

        run_sequence(t, ids, NULL, t->want);
        run_sequence(t, ids, f, t->got);
        if (codec == WK_KV_RAW &&
            memcmp(t->want, t->got, (size_t)SEQ * t->n_vocab * sizeof(float)) != 0)
            die("raw changed the logits");
        for (uint32_t i = t->page; i < SEQ; i++) /* the first page has seen no stored page */
            compare(&s, t->want + (size_t)i * t->n_vocab, t->got + (size_t)i * t->n_vocab, n,
                    i + 1 < SEQ ? &ids[i + 1] : NULL);
    }
    printf("| %s | %lu | %.6f | %.3f | %.3f %% | %.4f | %.4f |\n", wk_kv_codec_name(codec),
           (unsigned long)s.n, s.kl / (double)s.n, s.worst, 100.0 * (double)s.n_same / (double)s.n,
           s.nll[0] / (double)s.n_next, s.nll[1] / (double)s.n_next);
    (void)fflush(stdout);
    wk_kv_format_destroy(f);
    ps_buf_fini(&err);
}

int main(int argc, char **argv)
{
    struct run t = {0};

    if (argc < 5)
        die("usage: format_quality MODEL_DIR FORMATS N_TOKENS FILE...");
    read_text(&t, argv[1], argv + 4, argc - 4, (uint32_t)strtoul(argv[3], NULL, 10));
    open_model(&t, argv[1]);
    printf("%u tokens; %u layers, %u KV heads of %u, %s\n\n"
           "| format | tokens compared | mean KL, nats | largest KL | same top token | nats per "
           "token without "
           "| with |\n|---|---|---|---|---|---|---|\n",
           t.ids.n, wk_model_config(t.model)->n_layer, wk_model_config(t.model)->n_kv_head,
           wk_model_config(t.model)->d_head, t.be->describe(t.dev));
    bench(&t, WK_KV_RAW);
    for (int codec = WK_KV_FP8; codec < WK_KV_N_CODECS; codec++) {
        if (strstr(argv[2], wk_kv_codec_name((enum wk_kv_codec)codec)) != NULL)
            bench(&t, (enum wk_kv_codec)codec);
    }
    close_model(&t);
    return 0;
}
