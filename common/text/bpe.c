#include "common/text/bpe.h"

#include <string.h>

enum {
    /* Where the heap starts to win over rescanning; 24 to 48 measure the same. */
    ARRAY_MAX = 32,
    /* One entry is a cache line: 24 bytes of text hold nearly all words, 9 ids what they become. */
    KEY_BYTES = 24,
    ENTRY_IDS = 9,
    /* 32,768 lines are 2 MiB: larger tables gain no hits on text and miss the second-level cache. */
    N_SETS = 16384,
};

struct entry {
    uint64_t key[KEY_BYTES / 8]; /* zero-padded */
    uint8_t len, n;              /* len 0: empty entry */
    uint32_t ids[ENTRY_IDS];
};

_Static_assert(sizeof(struct entry) == PS_CACHE_LINE, "an entry is one cache line");

struct heap_item {
    uint64_t key; /* rank << 32 | position: lowest rank, then leftmost */
    uint32_t id;
};

struct symbol {
    uint32_t id;
    uint32_t prev, next; /* NIL: none */
    uint32_t merged; /* what it and the next one become; NIL: they do not merge, or it is dead */
};

#define NIL UINT32_MAX

struct ps_bpe_ctx {
    const struct ps_bpe *bpe;
    struct entry *cache; /* [N_SETS][2] */
    struct symbol *syms;
    size_t cap_syms;
    struct heap_item *heap;
    size_t n_heap, cap_heap;
};

static const struct ps_bpe_merge no_merge = {UINT32_MAX, 0};

static inline uint64_t mix(uint64_t x)
{
    x *= UINT64_C(0x9E3779B97F4A7C15); /* 2^64 / golden ratio */
    return x ^ (x >> 32);
}

void ps_bpe_init(struct ps_bpe *b, const struct ps_vocab *v, uint32_t n_merges)
{
    uint64_t cap = 1024;

    memset(b, 0, sizeof(*b));
    b->vocab = v;
    b->unk_id = PS_VOCAB_NONE;
    while (cap < (uint64_t)n_merges * 3 / 2)
        cap *= 2;
    PS_ASSERT(cap <= UINT32_MAX);
    b->cap = (uint32_t)cap;
    b->slots = ps_alloc(cap * sizeof(*b->slots));
    for (uint64_t i = 0; i < cap; i++)
        b->slots[i].to = no_merge;
}

void ps_bpe_fini(struct ps_bpe *b)
{
    ps_free(b->slots);
    ps_free(b->byte_pair);
    memset(b, 0, sizeof(*b));
}

/* The slot of this pair, or the free one where it would be. */
static inline struct ps_bpe_slot *slot_of(const struct ps_bpe *b, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    uint32_t i = (uint32_t)mix(pair) & (b->cap - 1);

    while (b->slots[i].to.rank != UINT32_MAX && b->slots[i].pair != pair)
        i = (i + 1) & (b->cap - 1);
    return &b->slots[i];
}

void ps_bpe_add(struct ps_bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    struct ps_bpe_slot *s = slot_of(b, left, right);

    PS_ASSERT(rank != UINT32_MAX);
    if (s->to.rank == UINT32_MAX)
        b->n++;
    PS_ASSERT(b->n < b->cap);
    s->pair = (uint64_t)left << 32 | right;
    s->to.rank = rank;
    s->to.id = id;
}

void ps_bpe_seal(struct ps_bpe *b)
{
    b->byte_pair = ps_alloc(256 * 256 * sizeof(*b->byte_pair));
    for (uint32_t i = 0; i < 256; i++) {
        char c = (char)(uint8_t)i;

        b->byte_id[i] = ps_vocab_find_raw(b->vocab, &c, 1);
    }
    for (uint32_t i = 0; i < 256 * 256; i++) {
        uint32_t l = b->byte_id[i >> 8], r = b->byte_id[i & 255];

        b->byte_pair[i] =
            l == PS_VOCAB_NONE || r == PS_VOCAB_NONE ? no_merge : slot_of(b, l, r)->to;
    }
}

struct ps_bpe_ctx *ps_bpe_ctx_create(const struct ps_bpe *b)
{
    struct ps_bpe_ctx *c = ps_calloc(1, sizeof(*c));

    c->bpe = b;
    return c;
}

void ps_bpe_ctx_destroy(struct ps_bpe_ctx *c)
{
    if (c == NULL)
        return;
    ps_free(c->cache);
    ps_free(c->syms);
    ps_free(c->heap);
    ps_free(c);
}

void ps_tok_ids_reserve(struct ps_tok_ids *ids, size_t n)
{
    size_t cap = ids->cap ? ids->cap : 64;

    while (cap < ids->n + n)
        cap *= 2;
    PS_ASSERT(cap <= UINT32_MAX); /* at most one id a byte, and texts are bounded */
    if (cap > ids->cap) {
        ids->ids = ps_realloc(ids->ids, cap * sizeof(*ids->ids));
        ids->cap = (uint32_t)cap;
    }
}

/*
 * The piece's symbols, one a byte. A byte without a token becomes the unknown token (a run of them
 * one, if fused) or vanishes, so that its neighbours meet: there is at most one symbol a byte.
 */
static size_t fill_symbols(const struct ps_bpe *b, const uint8_t *s, size_t len, uint32_t *out,
                           size_t stride)
{
    size_t n = 0;
    bool in_unk = false;

    for (size_t i = 0; i < len; i++) {
        uint32_t id = b->byte_id[s[i]];

        if (PS_UNLIKELY(id == PS_VOCAB_NONE)) {
            if (b->unk_id == PS_VOCAB_NONE || (in_unk && b->fuse_unk))
                continue;
            id = b->unk_id;
            in_unk = true;
        } else {
            in_unk = false;
        }
        *(uint32_t *)(void *)((char *)out + n++ * stride) = id;
    }
    return n;
}

void ps_bpe_encode_array(struct ps_bpe_ctx *c, const char *piece, size_t len,
                         struct ps_tok_ids *ids)
{
    const struct ps_bpe *b = c->bpe;
    const uint8_t *s = (const uint8_t *)piece;
    uint32_t sym[ARRAY_MAX];
    struct ps_bpe_merge m[ARRAY_MAX]; /* m[i] of sym[i] and sym[i + 1] */
    uint32_t n;
    bool all_bytes;

    PS_ASSERT(len <= ARRAY_MAX);
    n = (uint32_t)fill_symbols(b, s, len, sym, sizeof(sym[0]));
    all_bytes = n == len && b->unk_id == PS_VOCAB_NONE;
    for (uint32_t i = 0; i + 1 < n; i++)
        m[i] = all_bytes ? b->byte_pair[(uint32_t)s[i] << 8 | s[i + 1]]
                         : slot_of(b, sym[i], sym[i + 1])->to;
    while (n > 1) {
        uint32_t at = 0, best = m[0].rank;

        for (uint32_t i = 1; i + 1 < n; i++) {
            at = m[i].rank < best ? i : at;
            best = m[i].rank < best ? m[i].rank : best;
        }
        if (best == UINT32_MAX)
            break;
        sym[at] = m[at].id;
        n--;
        for (uint32_t i = at + 1; i < n; i++) {
            sym[i] = sym[i + 1];
            m[i - 1] = m[i];
        }
        if (at > 0)
            m[at - 1] = slot_of(b, sym[at - 1], sym[at])->to;
        if (at + 1 < n)
            m[at] = slot_of(b, sym[at], sym[at + 1])->to;
    }
    ps_tok_ids_reserve(ids, n);
    if (n > 0)
        memcpy(ids->ids + ids->n, sym, n * sizeof(sym[0]));
    ids->n += n;
}

static void heap_push(struct ps_bpe_ctx *c, struct ps_bpe_merge m, uint32_t pos)
{
    struct heap_item x = {(uint64_t)m.rank << 32 | pos, m.id};
    size_t i;

    if (c->n_heap == c->cap_heap) {
        c->cap_heap = c->cap_heap ? c->cap_heap * 2 : 256;
        c->heap = ps_realloc(c->heap, c->cap_heap * sizeof(*c->heap));
    }
    i = c->n_heap++;
    while (i > 0 && c->heap[(i - 1) / 2].key > x.key) {
        c->heap[i] = c->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    c->heap[i] = x;
}

static struct heap_item heap_pop(struct ps_bpe_ctx *c)
{
    struct heap_item top = c->heap[0], x;
    size_t i = 0, n;

    PS_DASSERT(c->n_heap > 0);
    n = --c->n_heap;
    if (n == 0)
        return top;
    x = c->heap[n];
    for (;;) {
        size_t k = 2 * i + 1;

        if (k >= n)
            break;
        if (k + 1 < n && c->heap[k + 1].key < c->heap[k].key)
            k++;
        if (x.key <= c->heap[k].key)
            break;
        c->heap[i] = c->heap[k];
        i = k;
    }
    c->heap[i] = x;
    return top;
}

/* Notes what the symbol at left and its new neighbour become. */
static void push_pair(struct ps_bpe_ctx *c, uint32_t left)
{
    struct symbol *l = &c->syms[left];
    struct ps_bpe_merge m = no_merge;

    if (l->next != NIL)
        m = slot_of(c->bpe, l->id, c->syms[l->next].id)->to;
    l->merged = m.rank == UINT32_MAX ? NIL : m.id;
    if (m.rank != UINT32_MAX)
        heap_push(c, m, left);
}

/* One symbol a byte in c->syms, and all their pairs in the heap; returns how many. */
static uint32_t fill_heap(struct ps_bpe_ctx *c, const uint8_t *s, size_t len)
{
    const struct ps_bpe *b = c->bpe;
    struct symbol *y;
    uint32_t n;

    if (len > c->cap_syms) {
        c->cap_syms = len * 2;
        c->syms = ps_realloc(c->syms, c->cap_syms * sizeof(*c->syms));
    }
    y = c->syms;
    n = len == 0 ? 0 : (uint32_t)fill_symbols(b, s, len, &y->id, sizeof(*y));
    for (uint32_t i = 0; i < n; i++) {
        y[i].prev = i == 0 ? NIL : i - 1;
        y[i].next = i + 1 == n ? NIL : i + 1;
    }
    c->n_heap = 0;
    if (n < len || b->unk_id != PS_VOCAB_NONE) {
        for (uint32_t i = 0; i < n; i++)
            push_pair(c, i);
        return n;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct ps_bpe_merge m =
            i + 1 == n ? no_merge : b->byte_pair[(uint32_t)s[i] << 8 | s[i + 1]];

        y[i].merged = m.rank == UINT32_MAX ? NIL : m.id;
        if (m.rank != UINT32_MAX)
            heap_push(c, m, i);
    }
    return n;
}

void ps_bpe_encode_heap(struct ps_bpe_ctx *c, const char *piece, size_t len, struct ps_tok_ids *ids)
{
    struct symbol *y;
    uint32_t n;

    PS_ASSERT(len < UINT32_MAX / 4);
    n = fill_heap(c, (const uint8_t *)piece, len);
    y = c->syms;
    while (c->n_heap > 0) {
        struct heap_item x = heap_pop(c);
        uint32_t l = (uint32_t)x.key, r;

        /* The pair that was pushed may be gone: its left half merged away, or either half grew. */
        if (y[l].merged != x.id)
            continue;
        r = y[l].next;
        y[l].id = x.id;
        y[l].next = y[r].next;
        y[r].merged = NIL;
        if (y[l].next != NIL)
            y[y[l].next].prev = l;
        if (y[l].prev != NIL)
            push_pair(c, y[l].prev);
        push_pair(c, l);
    }
    ps_tok_ids_reserve(ids, n);
    for (uint32_t i = n == 0 ? NIL : 0; i != NIL; i = y[i].next)
        ids->ids[ids->n++] = y[i].id;
}

static void encode_uncached(struct ps_bpe_ctx *c, const char *piece, size_t len,
                            struct ps_tok_ids *ids)
{
    if (c->bpe->ignore_merges) {
        uint32_t id = ps_vocab_find_raw(c->bpe->vocab, piece, len);

        if (id != PS_VOCAB_NONE) {
            ps_tok_ids_add(ids, id);
            return;
        }
    }
    if (len <= ARRAY_MAX)
        ps_bpe_encode_array(c, piece, len, ids);
    else
        ps_bpe_encode_heap(c, piece, len, ids);
}

/* The piece as zero-padded words. Reads whole words where the text goes on far enough. */
static inline void load_key(uint64_t key[3], const char *piece, size_t len, const char *end)
{
    key[0] = key[1] = key[2] = 0;
    if (PS_LIKELY((size_t)(end - piece) >= KEY_BYTES)) {
        size_t w = len / 8, bits = len % 8 * 8;

        memcpy(&key[0], piece, 8);
        if (len <= 8) {
            key[0] &= len == 8 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
            return;
        }
        memcpy(&key[1], piece + 8, 8);
        memcpy(&key[2], piece + 16, 8);
        if (w < 2)
            key[2] = 0;
        if (w < 3)
            key[w] &= (UINT64_C(1) << bits) - 1;
        return;
    }
    memcpy(key, piece, len);
}

void ps_bpe_encode(struct ps_bpe_ctx *c, const char *piece, size_t len, const char *end,
                   bool use_cache, struct ps_tok_ids *ids)
{
    struct entry *e;
    uint64_t key[3], h;
    uint32_t from;

    if (len == 0)
        return;
    if (len > KEY_BYTES || !use_cache) {
        encode_uncached(c, piece, len, ids);
        return;
    }
    if (PS_UNLIKELY(c->cache == NULL)) {
        c->cache = ps_alloc_aligned(PS_CACHE_LINE, 2 * N_SETS * sizeof(*c->cache));
        memset(c->cache, 0, 2 * N_SETS * sizeof(*c->cache));
    }
    load_key(key, piece, len, end);
    h = mix(key[0] ^ mix(key[1] + len) ^ mix(mix(key[2]) + 1));
    e = &c->cache[(h >> 20) % N_SETS * 2];
    for (uint32_t way = 0; way < 2; way++, e++) {
        if (e->len != len || e->key[0] != key[0] || e->key[1] != key[1] || e->key[2] != key[2])
            continue;
        if (PS_UNLIKELY(ids->cap - ids->n < ENTRY_IDS))
            ps_tok_ids_reserve(ids, ENTRY_IDS);
        memcpy(ids->ids + ids->n, e->ids, sizeof(e->ids));
        ids->n += e->n;
        return;
    }
    from = ids->n;
    encode_uncached(c, piece, len, ids);
    if (ids->n - from > ENTRY_IDS)
        return;
    e -= 2;
    e[1] = e[0]; /* the newest stands first, the older of the two is forgotten */
    memcpy(e->key, key, sizeof(e->key));
    e->len = (uint8_t)len;
    e->n = (uint8_t)(ids->n - from);
    if (e->n > 0)
        memcpy(e->ids, ids->ids + from, e->n * sizeof(e->ids[0]));
}
