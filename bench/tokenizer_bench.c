/*
 * Encode speed of the tokenizer on one core; bench/tokenizer_vs_hf.py runs it beside the reference.
 *
 *   tokenizer_bench <directory with tokenizer.json> <file of documents: u32 length, bytes>
 *
 * Prints one line a mode: name, bytes, ids, processor seconds of the fastest round.
 *   uncached  neither cache is used
 *   cold      a fresh context a round, each document once: what a new text costs
 *   repeat    the document was encoded right before: what the earlier turns of a conversation cost
 */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/text/tokenizer.h"

enum { ROUNDS = 5, REPEATS = 16, DOC_BYTES_MAX = 64 << 20 };

struct docs {
    struct ps_buf text;
    size_t at[1 << 16];
    uint32_t n;
};

/* Processor time: other programs on the machine do not count. */
static double now_s(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static bool read_docs(struct docs *d, const char *path)
{
    FILE *f = fopen(path, "rb");
    uint32_t len;

    if (f == NULL)
        return false;
    while (d->n + 1 < PS_ARRAY_LEN(d->at) && fread(&len, sizeof(len), 1, f) == 1) {
        if (len > DOC_BYTES_MAX)
            break;
        d->at[d->n++] = d->text.len;
        if (fread(ps_buf_grow(&d->text, len), 1, len, f) != len)
            break;
    }
    d->at[d->n] = d->text.len;
    (void)fclose(f);
    return d->n > 0;
}

static void encode(struct ps_tok_ctx *c, const char *s, size_t len, uint32_t flags,
                   struct ps_tok_ids *ids)
{
    int r;

    ids->n = 0;
    r = ps_tok_encode(c, s, len, flags, 0, ids);
    PS_ASSERT(r == PS_TOK_OK);
}

static void run(const struct ps_tok *t, const struct docs *d, const char *mode)
{
    uint32_t flags = strcmp(mode, "uncached") == 0 ? PS_TOK_NO_CACHE : 0;
    bool repeat = strcmp(mode, "repeat") == 0;
    struct ps_tok_ids ids = {NULL, 0, 0};
    double best = 1e9;
    size_t n_ids = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct ps_tok_ctx *c = ps_tok_ctx_create(t);
        double sum = 0, start = now_s();

        n_ids = 0;
        for (uint32_t i = 0; i < d->n; i++) {
            const char *s = d->text.data + d->at[i];
            size_t len = d->at[i + 1] - d->at[i];

            encode(c, s, len, flags, &ids);
            n_ids += ids.n;
            if (!repeat)
                continue;
            start = now_s();
            for (int k = 0; k < REPEATS; k++)
                encode(c, s, len, flags, &ids);
            sum += (now_s() - start) / REPEATS;
        }
        if (!repeat)
            sum = now_s() - start;
        best = sum < best ? sum : best;
        ps_tok_ctx_destroy(c);
    }
    printf("%s bytes %zu ids %zu seconds %.6f\n", mode, d->text.len, n_ids, best);
    ps_tok_ids_fini(&ids);
}

int main(int argc, char **argv)
{
    static struct docs d;
    struct ps_buf err = PS_BUF_INIT;
    struct ps_tok *t;
    double start;

    if (argc != 3 || !read_docs(&d, argv[2])) {
        fprintf(stderr, "usage: tokenizer_bench <directory> <documents>\n");
        return 2;
    }
    start = now_s();
    if (ps_tok_load(&t, argv[1], &err) != PS_TOK_OK) {
        fprintf(stderr, "tokenizer_bench: %s\n", err.data);
        return 1;
    }
    printf("load seconds %.3f\n", now_s() - start);
    run(t, &d, "uncached");
    run(t, &d, "cold");
    run(t, &d, "repeat");
    ps_tok_destroy(t);
    ps_buf_fini(&d.text);
    ps_buf_fini(&err);
    return 0;
}
