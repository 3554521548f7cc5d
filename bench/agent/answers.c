#include "bench/agent/answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

void bn_answers_fini(struct bn_answers *a)
{
    for (size_t i = 0; i < a->n; i++)
        ps_free(a->v[i].ids);
    ps_free(a->v);
    a->v = NULL;
    a->n = a->cap = 0;
}

void bn_answers_add(struct bn_answers *a, uint32_t session, uint32_t turn, const uint32_t *prompt,
                    size_t n_prompt, const uint32_t *ids, uint32_t n)
{
    struct bn_answer *x;

    if (a->n == a->cap) {
        a->cap = a->cap > 0 ? a->cap * 2 : 256;
        a->v = ps_realloc(a->v, a->cap * sizeof(a->v[0]));
    }
    x = &a->v[a->n++];
    *x = (struct bn_answer){.session = session, .turn = turn, .n = n};
    x->prompt_hash = ps_hash64(prompt, n_prompt * sizeof(prompt[0]), 0);
    x->ids = ps_alloc(n * sizeof(ids[0]));
    memcpy(x->ids, ids, n * sizeof(ids[0]));
}

static int by_turn(const void *a, const void *b)
{
    const struct bn_answer *x = a, *y = b;

    if (x->session != y->session)
        return x->session < y->session ? -1 : 1;
    return (x->turn > y->turn) - (x->turn < y->turn);
}

void bn_answers_write(struct bn_answers *a, struct ps_buf *out)
{
    if (a->n > 0)
        qsort(a->v, a->n, sizeof(a->v[0]), by_turn);
    for (size_t i = 0; i < a->n; i++) {
        const struct bn_answer *x = &a->v[i];

        ps_buf_addf(out, "%" PRIu32 " %" PRIu32 " %016" PRIx64, x->session, x->turn,
                    x->prompt_hash);
        for (uint32_t k = 0; k < x->n; k++)
            ps_buf_addf(out, " %" PRIu32, x->ids[k]);
        ps_buf_add_byte(out, '\n');
    }
}

/* A line "session turn hash ids..": the place it is for, and where its parts end. */
struct line {
    const char *s;
    size_t n, n_head; /* n_head: session, turn and hash */
    uint64_t place;   /* session << 32 | turn; UINT64_MAX behind the last line */
};

static bool read_u32(const char **p, const char *end, char stop, uint64_t *out)
{
    uint64_t v = 0;
    const char *s = *p;

    while (s < end && *s >= '0' && *s <= '9' && v <= UINT32_MAX)
        v = v * 10 + (uint64_t)(*s++ - '0');
    if (s == *p || s == end || *s != stop || v > UINT32_MAX)
        return false;
    *p = s + 1;
    *out = v;
    return true;
}

/* The next line; false when it is none of an answer. */
static bool next_line(const char **p, const char *end, struct line *out)
{
    const char *nl, *q = *p;
    uint64_t session, turn;

    *out = (struct line){.s = q, .place = UINT64_MAX};
    if (q == end)
        return true;
    nl = memchr(q, '\n', (size_t)(end - q));
    out->n = (size_t)((nl != NULL ? nl : end) - q);
    *p = nl != NULL ? nl + 1 : end;
    if (!read_u32(&q, out->s + out->n, ' ', &session) || !read_u32(&q, out->s + out->n, ' ', &turn))
        return false;
    out->place = session << 32 | turn;
    out->n_head = (size_t)(q - out->s) + 16;
    return out->n_head <= out->n;
}

static bool next_lines(const char **a, const char *end_a, struct line *x, const char **b,
                       const char *end_b, struct line *y)
{
    bool ok_a = next_line(a, end_a, x), ok_b = next_line(b, end_b, y);

    return ok_a && ok_b;
}

static void differs(struct bn_difference *d, const struct line *l, const char *why)
{
    if (d->n_differ++ == 0)
        (void)snprintf(d->first, sizeof(d->first), "session %" PRIu64 " turn %" PRIu64 ": %s",
                       l->place >> 32, l->place & UINT32_MAX, why);
}

void bn_answers_compare(const char *a, size_t n_a, const char *b, size_t n_b,
                        struct bn_difference *out)
{
    const char *end_a = a + n_a, *end_b = b + n_b;
    struct line x, y;
    bool ok;

    memset(out, 0, sizeof(*out));
    ok = next_lines(&a, end_a, &x, &b, end_b, &y);
    while (ok && (x.place != UINT64_MAX || y.place != UINT64_MAX)) {
        out->n_turns++;
        if (x.place != y.place)
            differs(out, x.place < y.place ? &x : &y, "only in one of them");
        else if (x.n_head != y.n_head || memcmp(x.s, y.s, x.n_head) != 0)
            out->n_followed++;
        else if (x.n != y.n || memcmp(x.s, y.s, x.n) != 0)
            differs(out, &x, "equal prompts, other answers");
        if (x.place < y.place)
            ok = next_line(&a, end_a, &x);
        else if (y.place < x.place)
            ok = next_line(&b, end_b, &y);
        else
            ok = next_lines(&a, end_a, &x, &b, end_b, &y);
    }
    if (!ok && out->n_differ++ == 0)
        (void)snprintf(out->first, sizeof(out->first), "a line is no answer");
}
