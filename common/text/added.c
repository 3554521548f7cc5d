#include "common/text/added.h"

#include <string.h>

#include "common/text/uprop.h"

struct ps_added_edge {
    uint32_t key; /* node << 8 | byte */
    uint32_t to;  /* 0: free; the root is never a target */
};

void ps_added_init(struct ps_added *a)
{
    memset(a, 0, sizeof(*a));
}

void ps_added_fini(struct ps_added *a)
{
    ps_free(a->toks);
    ps_free(a->edges);
    ps_free(a->hit);
    memset(a, 0, sizeof(*a));
}

static struct ps_added_edge *edge_of(const struct ps_added *a, uint32_t node, uint8_t byte)
{
    uint32_t key = node << 8 | byte;
    uint32_t i = (key * UINT32_C(0x9E3779B1)) >> 7;

    for (;; i++) {
        struct ps_added_edge *e = &a->edges[i & (a->cap_edges - 1)];

        if (e->to == 0 || e->key == key)
            return e;
    }
}

static void grow_edges(struct ps_added *a)
{
    struct ps_added_edge *old = a->edges;
    uint32_t n = a->cap_edges;

    if (a->cap_edges != 0 && (a->n_edges + 1) * 2 <= a->cap_edges)
        return;
    a->cap_edges = n == 0 ? 256 : n * 2;
    a->edges = ps_calloc(a->cap_edges, sizeof(*a->edges));
    for (uint32_t i = 0; i < n; i++)
        if (old[i].to != 0)
            *edge_of(a, old[i].key >> 8, (uint8_t)old[i].key) = old[i];
    ps_free(old);
}

static uint32_t add_node(struct ps_added *a)
{
    if (a->n_nodes == a->cap_nodes) {
        a->cap_nodes = a->cap_nodes ? a->cap_nodes * 2 : 256;
        a->hit = ps_realloc(a->hit, a->cap_nodes * sizeof(*a->hit));
    }
    PS_ASSERT(a->n_nodes < 1 << 24); /* the loader bounds the sum of all contents */
    a->hit[a->n_nodes] = 0;
    return a->n_nodes++;
}

void ps_added_add(struct ps_added *a, const char *content, size_t len, struct ps_added_tok tok)
{
    uint32_t node = 0;

    PS_ASSERT(len > 0 && len <= PS_ADDED_LEN_MAX);
    if (a->n_nodes == 0)
        add_node(a);
    for (size_t i = 0; i < len; i++) {
        struct ps_added_edge *e;

        grow_edges(a);
        e = edge_of(a, node, (uint8_t)content[i]);
        if (e->to == 0) {
            e->key = node << 8 | (uint8_t)content[i];
            e->to = add_node(a);
            a->n_edges++;
        }
        node = e->to;
    }
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->toks = ps_realloc(a->toks, a->cap * sizeof(*a->toks));
    }
    a->toks[a->n++] = tok;
    if (a->hit[node] == 0)
        a->hit[node] = a->n;
    if (!a->first[(uint8_t)content[0]]) {
        a->first[(uint8_t)content[0]] = true;
        a->only_first = (uint8_t)content[0];
        a->n_first++;
    }
}

/* The longest token that starts exactly at p, NULL when there is none. */
static const struct ps_added_tok *match_at(const struct ps_added *a, const char *s, size_t n,
                                           size_t p, size_t *out_end)
{
    uint32_t node = 0, best = 0;

    for (size_t i = p; i < n; i++) {
        const struct ps_added_edge *e = edge_of(a, node, (uint8_t)s[i]);

        if (e->to == 0)
            break;
        node = e->to;
        if (a->hit[node] != 0) {
            best = a->hit[node];
            *out_end = i + 1;
        }
    }
    return best == 0 ? NULL : &a->toks[best - 1];
}

/* The leftmost match at or after p. */
static const struct ps_added_tok *find(const struct ps_added *a, const char *s, size_t n, size_t p,
                                       size_t *out_start, size_t *out_end)
{
    while (p < n) {
        const struct ps_added_tok *t;

        if (a->n_first == 1) {
            const char *q = memchr(s + p, a->only_first, n - p);

            if (q == NULL)
                return NULL;
            p = (size_t)(q - s);
        } else {
            while (p < n && !a->first[(uint8_t)s[p]])
                p++;
            if (p == n)
                return NULL;
        }
        t = match_at(a, s, n, p, out_end);
        if (t != NULL) {
            *out_start = p;
            return t;
        }
        p++;
    }
    return NULL;
}

static bool touches_word(const char *s, size_t n, size_t start, size_t end)
{
    const uint8_t *u = (const uint8_t *)s;
    uint32_t len;

    if ((ps_u8_prop_before(u, start, &len) & PS_UP_WORD) != 0)
        return true;
    return end < n && (ps_u8_prop(u + end, &len) & PS_UP_WORD) != 0;
}

void ps_split_init(struct ps_split *it, const struct ps_added *a, const char *s, size_t n)
{
    memset(it, 0, sizeof(*it));
    it->a = a;
    it->s = s;
    it->n = n;
}

/* Finds the next token that counts and widens it; its start is returned, the rest kept in it. */
static bool find_token(struct ps_split *it, size_t *out_start)
{
    const uint8_t *u = (const uint8_t *)it->s;
    const struct ps_added_tok *t;
    size_t start = 0, end = 0;
    uint32_t len;

    if (it->a->n == 0)
        return false;
    for (;;) {
        t = find(it->a, it->s, it->n, it->search, &start, &end);
        if (t == NULL)
            return false;
        it->search = end;
        if (!t->single_word || !touches_word(it->s, it->n, start, end))
            break;
    }
    if (t->lstrip)
        while (start > it->done && (ps_u8_prop_before(u, start, &len) & PS_UP_SPACE) != 0)
            start -= len;
    if (t->rstrip)
        while (end < it->n && (ps_u8_prop(u + end, &len) & PS_UP_SPACE) != 0)
            end += len;
    it->tok_id = t->id;
    it->tok_end = end;
    *out_start = start;
    return true;
}

bool ps_split_next(struct ps_split *it, bool *out_is_tok, uint32_t *out_id, size_t *out_from,
                   size_t *out_to)
{
    size_t start;

    if (it->has_tok) {
        /*
         * The spaces a token swallowed may hold other tokens: the search goes on at the end of its
         * own text, so the next token may start before `done`. Then it is handed out as well.
         */
        it->has_tok = false;
        it->done = it->tok_end;
        *out_is_tok = true;
        *out_id = it->tok_id;
        return true;
    }
    *out_is_tok = false;
    *out_from = it->done;
    if (it->at_end || !find_token(it, &start)) {
        it->at_end = true;
        *out_to = it->n;
        it->done = it->n;
        return *out_from < *out_to;
    }
    it->has_tok = true;
    *out_to = start;
    if (*out_from < start)
        return true;
    return ps_split_next(it, out_is_tok, out_id, out_from, out_to);
}
