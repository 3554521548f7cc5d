/*
 * mutate_model MODEL_DIR FILE N SEED: damages one file of a model directory N times (5 N with
 * PENSTOCK_FULL=1), loads the result and uses what loads.
 *
 * Each time a copy of the directory (links, but for the one file) gets truncated, bit-flipped, or
 * given lying numbers; the loader must accept it or refuse it with one clear sentence. Run under ASan
 * and UBSan this is the proof that no damaged file can do more. A damaged weight inside the data is
 * not detectable and loads.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/model/file.h"
#include "common/rng.h"
#include "common/text/tokenizer.h"
#include "worker/model/model.h"

enum { MAX_FILE_BYTES = 64 << 20 };

static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors",
                                    "tokenizer.json", "tokenizer_config.json"};

PS_NORETURN static void die(const char *what)
{
    (void)fprintf(stderr, "mutate_model: %s (errno %d)\n", what, errno);
    exit(1);
}

static void join(char *out, size_t size, const char *dir, const char *name)
{
    int n = snprintf(out, size, "%s/%s", dir, name);

    if (n < 0 || (size_t)n >= size)
        die("path too long");
}

/* How far from the start damage is interesting: the header of a safetensors file, all of a JSON file. */
static size_t head_bytes(const struct ps_buf *b, const char *file)
{
    uint64_t n;

    if (strcmp(file, "model.safetensors") != 0 || b->len < 8)
        return b->len;
    memcpy(&n, b->data, 8);
    return ps_min_size(b->len, (size_t)n + 8);
}

/* Replaces a run of digits by another number: lengths, shapes, offsets and ids that lie. */
static void lie(struct ps_rng *r, struct ps_buf *b, size_t head)
{
    static const char *const numbers[] = {
        "0", "-1", "1", "99999999999", "18446744073709551616", "1e400", "2147483648"};
    const char *number = numbers[ps_rng_below(r, PS_ARRAY_LEN(numbers))];
    size_t i, start = ps_rng_below(r, head), end;
    struct ps_buf tail = PS_BUF_INIT;

    for (i = 0; i < head; i++) {
        size_t at = (start + i) % head;

        if (b->data[at] >= '0' && b->data[at] <= '9') {
            for (end = at; end < b->len && b->data[end] >= '0' && b->data[end] <= '9'; end++) {
            }
            ps_buf_add(&tail, b->data + end, b->len - end);
            ps_buf_truncate(b, at);
            ps_buf_add_str(b, number);
            ps_buf_add(b, tail.data, tail.len);
            ps_buf_fini(&tail);
            return;
        }
    }
}

static void damage(struct ps_rng *r, struct ps_buf *b, const char *file)
{
    size_t head = head_bytes(b, file), n = 1 + ps_rng_below(r, 4);

    if (b->len == 0)
        return;
    if (ps_rng_below(r, 8) == 0) /* weights that are other weights: loads */
        head = b->len;
    switch (ps_rng_below(r, 5)) {
    case 0:
        ps_buf_truncate(b, ps_rng_below(r, b->len));
        break;
    case 1:
        while (n-- > 0)
            b->data[ps_rng_below(r, head)] ^= (char)(1u << ps_rng_below(r, 8));
        break;
    case 2:
        while (n-- > 0)
            b->data[ps_rng_below(r, head)] = (char)ps_rng_below(r, 256);
        break;
    case 3:
        lie(r, b, head);
        break;
    default: { /* a piece moved over another */
        size_t len = 1 + ps_rng_below(r, ps_min_size(head, 64)),
               from = ps_rng_below(r, head - len + 1);

        memmove(b->data + ps_rng_below(r, head - len + 1), b->data + from, len);
    }
    }
}

static void write_file(const char *path, const struct ps_buf *b)
{
    PS_AUTO(ps_close_fd) int fd = -1;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, b->len > 0 ? b->data : "", b->len) != (ssize_t)b->len)
        die(path);
}

static bool one_sentence(const struct ps_buf *err)
{
    return err->len > 10 && err->len < 600 && memchr(err->data, '\n', err->len) == NULL;
}

/* An accepted model runs: three tokens, and one sampled, whatever comes of it. */
static void use_model(struct wk_model *m)
{
    static const uint32_t ids[] = {0, 0, 0}, table[] = {0}, rows[] = {2};
    const struct kn_backend *be = kn_backend_cpu();
    const struct kn_seq seq = {.n_q = 3};
    const struct wk_forward f = {.ids = ids,
                                 .n_tok = 3,
                                 .seqs = &seq,
                                 .n_seq = 1,
                                 .table = table,
                                 .table_stride = 1,
                                 .out_rows = rows,
                                 .n_out = 1};
    const struct kn_samp s = {.temperature = 1.0f,
                              .top_p = 0.9f,
                              .rep_penalty = 1.0f,
                              .n_vocab_valid = wk_model_n_vocab_valid(m),
                              .n_top = 3};
    uint32_t n_vocab = wk_model_config(m)->n_vocab;
    size_t page = wk_model_layout(m)->group[0].item_bytes;
    struct kn_dev_conf conf = {.isa = ""};
    struct kn_samp_out out;
    struct kn_dev *d;
    float *logits;
    void *arena;

    if (be->open(&d, &conf) != KN_OK || be->mem_alloc(d, page, &arena) != KN_OK ||
        be->mem_alloc(d, n_vocab * sizeof(float), (void **)&logits) != KN_OK ||
        wk_model_bind(m, be, d, arena, 3) != 0 || wk_model_forward(m, &f) != 0 ||
        wk_model_logits(m, 0, 1, logits) != 0 ||
        be->ops->sample(d, logits, 1, n_vocab, &s, &out) != KN_OK ||
        (!out.fault && out.token >= n_vocab))
        die("an accepted model does not run");
    wk_model_unbind(m);
    be->mem_free(d, arena, page);
    be->mem_free(d, logits, n_vocab * sizeof(float));
    be->close(d);
}

static void use_tokenizer(const struct ps_tok *t)
{
    static const char text[] = "Hello, 42 w\xc3\xb6rlds!\n";
    struct ps_tok_ctx *c = ps_tok_ctx_create(t);
    struct ps_tok_ids ids = {NULL, 0, 0};
    struct ps_buf back = PS_BUF_INIT;

    if (ps_tok_encode(c, text, sizeof(text) - 1, PS_TOK_SPECIAL, 0, &ids) == PS_TOK_OK)
        ps_tok_decode(t, ids.ids, ids.n, true, &back);
    ps_buf_fini(&back);
    ps_tok_ids_fini(&ids);
    ps_tok_ctx_destroy(c);
}

/* Returns whether the directory was accepted. */
static bool load(const char *dir, const char *file, struct ps_buf *err)
{
    struct wk_model *m = NULL;
    struct ps_tok *t = NULL;
    int r;

    ps_buf_clear(err);
    if (strncmp(file, "tokenizer", 9) == 0) {
        r = ps_tok_load(&t, dir, err);
        if (r == PS_TOK_OK)
            use_tokenizer(t);
        ps_tok_destroy(t);
    } else {
        r = wk_model_load(&m, dir, err);
        if (r == WK_MODEL_OK)
            use_model(m);
        wk_model_destroy(m);
    }
    if (r != 0 && (r < 0 || !one_sentence(err))) {
        (void)fprintf(stderr, "mutate_model: result %d at %s: '%s'\n", r, ps_fault_where(),
                      err->data != NULL ? err->data : "");
        exit(1);
    }
    return r == 0;
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/penstock-mutate-XXXXXX", path[PATH_MAX], from[PATH_MAX], real[PATH_MAX];
    struct ps_buf original = PS_BUF_INIT, b = PS_BUF_INIT, err = PS_BUF_INIT;
    unsigned long i, n, n_ok = 0;
    struct ps_rng rng;
    const char *full;
    size_t k;

    if (argc != 5)
        die("usage: mutate_model MODEL_DIR FILE N SEED");
    full = getenv("PENSTOCK_FULL");
    n = strtoul(argv[3], NULL, 10) * (full != NULL && strcmp(full, "1") == 0 ? 5 : 1);
    ps_rng_seed(&rng, strtoul(argv[4], NULL, 10));
    if (mkdtemp(dir) == NULL || realpath(argv[1], real) == NULL ||
        ps_file_read(argv[1], argv[2], MAX_FILE_BYTES, &original) != PS_FILE_OK)
        die(argv[2]);
    for (k = 0; k < PS_ARRAY_LEN(files); k++) {
        join(path, sizeof(path), dir, files[k]);
        join(from, sizeof(from), real, files[k]);
        if (strcmp(files[k], argv[2]) != 0 && symlink(from, path) < 0)
            die(path);
    }
    join(path, sizeof(path), dir, argv[2]);
    write_file(path, &original);
    if (!load(dir, argv[2], &err))
        die(err.data);
    for (i = 0; i < n; i++) {
        ps_buf_clear(&b);
        ps_buf_add(&b, original.data, original.len);
        damage(&rng, &b, argv[2]);
        write_file(path, &b);
        n_ok += load(dir, argv[2], &err) ? 1 : 0;
    }
    (void)printf("%s: %lu mutations, %lu accepted, %lu refused; last refusal: %s\n", argv[2], n,
                 n_ok, n - n_ok, err.data != NULL ? err.data : "");
    for (k = 0; k < PS_ARRAY_LEN(files); k++) {
        join(path, sizeof(path), dir, files[k]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
    ps_buf_fini(&original);
    ps_buf_fini(&b);
    ps_buf_fini(&err);
    return n_ok == n && n > 0 ? 1 : 0; /* nothing refused: the damage did not reach the file */
}
