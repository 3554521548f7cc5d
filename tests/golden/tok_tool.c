/*
 * Drives the tokenizer for tests in other languages: records on stdin, answers on stdout.
 *
 *   tok_tool <directory with tokenizer.json>
 *   record: u8 op, u32 flags, u32 length, bytes      (little-endian)
 *   op 'E': bytes are text; answer u32 n, n ids      (n = 0xFFFFFFFF: PS_TOK_E_LIMIT)
 *   op 'D': bytes are ids, flags 1 drops specials; answer u32 length, text
 *   op 'S': as 'D', but pushed one id at a time; each piece must be valid UTF-8
 */

#include <stdio.h>
#include <string.h>

#include "common/text/tokenizer.h"
#include "common/text/utf8.h"

enum { RECORD_BYTES_MAX = 64 << 20 };

static bool read_all(void *p, size_t n)
{
    return fread(p, 1, n, stdin) == n;
}

static void put_u32(uint32_t v)
{
    (void)fwrite(&v, sizeof(v), 1, stdout);
}

static void encode(struct ps_tok_ctx *c, const char *s, size_t len, uint32_t flags)
{
    struct ps_tok_ids ids = {NULL, 0, 0};

    if (ps_tok_encode(c, s, len, flags, 0, &ids) != PS_TOK_OK) {
        put_u32(UINT32_MAX);
    } else {
        put_u32(ids.n);
        if (ids.n > 0)
            (void)fwrite(ids.ids, sizeof(ids.ids[0]), ids.n, stdout);
    }
    ps_tok_ids_fini(&ids);
}

static void decode(const struct ps_tok *t, const char *s, size_t len, bool skip, bool stream)
{
    uint32_t n = (uint32_t)(len / sizeof(uint32_t));
    uint32_t *ids = ps_alloc(len);
    struct ps_buf out = PS_BUF_INIT;
    struct ps_detok d;

    if (len > 0)
        memcpy(ids, s, len);
    if (!stream) {
        ps_tok_decode(t, ids, n, skip, &out);
    } else {
        ps_detok_init(&d, t, skip);
        for (uint32_t i = 0; i < n; i++) {
            size_t before = out.len;

            ps_detok_push(&d, ids[i], &out);
            PS_ASSERT(out.len == before || ps_utf8_valid(out.data + before, out.len - before));
        }
        ps_detok_flush(&d, &out);
    }
    put_u32((uint32_t)out.len);
    if (out.len > 0)
        (void)fwrite(out.data, 1, out.len, stdout);
    ps_buf_fini(&out);
    ps_free(ids);
}

int main(int argc, char **argv)
{
    struct ps_buf err = PS_BUF_INIT, text = PS_BUF_INIT;
    struct ps_tok_ctx *c;
    struct ps_tok *t;
    uint8_t op;

    if (argc != 2) {
        fprintf(stderr, "usage: tok_tool <directory>\n");
        return 2;
    }
    if (ps_tok_load(&t, argv[1], &err) != PS_TOK_OK) {
        fprintf(stderr, "tok_tool: %s\n", err.data);
        ps_buf_fini(&err);
        return 1;
    }
    c = ps_tok_ctx_create(t);
    while (read_all(&op, 1)) {
        uint32_t head[2];

        if (!read_all(head, sizeof(head)) || head[1] > RECORD_BYTES_MAX)
            return 2;
        ps_buf_clear(&text);
        ps_buf_reserve(&text, (size_t)head[1] + 1);
        if (!read_all(text.data, head[1]))
            return 2;
        if (op == 'E')
            encode(c, text.data, head[1], head[0]);
        else
            decode(t, text.data, head[1], (head[0] & 1) != 0, op == 'S');
    }
    ps_tok_ctx_destroy(c);
    ps_tok_destroy(t);
    ps_buf_fini(&text);
    ps_buf_fini(&err);
    return fflush(stdout) == 0 ? 0 : 2;
}
