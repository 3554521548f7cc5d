#include "common/text/vocab.h"

#include <string.h>

#include "common/hash.h"
#include "common/text/uprop.h"

/*
 * Byte alphabet: 21-7E, A1-AC and AE-FF stand for themselves; the other 68 bytes, in ascending
 * order, are U+0100 to U+0143. Returns the byte of a code point, or -1.
 */
static int alphabet_byte(uint32_t cp)
{
    if ((cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xAC) || (cp >= 0xAE && cp <= 0xFF))
        return (int)cp;
    if (cp < 0x100 || cp > 0x143)
        return -1;
    cp -= 0x100;
    if (cp <= 0x20)
        return (int)cp;
    if (cp <= 0x42)
        return (int)(cp - 0x21 + 0x7F);
    return 0xAD;
}

void ps_vocab_init(struct ps_vocab *v)
{
    memset(v, 0, sizeof(*v));
    v->pool_cap = 4096;
    v->pool = ps_alloc(v->pool_cap); /* never NULL: the first string may be empty */
}

void ps_vocab_fini(struct ps_vocab *v)
{
    ps_free(v->pool);
    ps_free(v->ents);
    ps_free(v->by_text);
    ps_free(v->by_raw);
    ps_free(v->by_id);
    memset(v, 0, sizeof(*v));
}

static uint32_t pool_add(struct ps_vocab *v, const char *p, size_t len)
{
    size_t off = v->pool_len;

    if (v->pool_cap - v->pool_len < len) {
        v->pool_cap = v->pool_cap * 2 + len + 4096;
        v->pool = ps_realloc(v->pool, v->pool_cap);
    }
    if (len > 0)
        memcpy(v->pool + off, p, len);
    v->pool_len += len;
    PS_ASSERT(v->pool_len <= UINT32_MAX); /* the loader bounds the file */
    return (uint32_t)off;
}

static uint32_t *slot_of(uint32_t *table, uint32_t cap, const struct ps_vocab *v, bool raw,
                         const char *p, size_t len)
{
    uint32_t i = (uint32_t)ps_hash64(p, len, 0) & (cap - 1);

    for (;; i = (i + 1) & (cap - 1)) {
        const struct ps_vocab_ent *e;
        uint32_t off, n;

        if (table[i] == 0)
            return &table[i];
        e = &v->ents[table[i] - 1];
        off = raw ? e->raw_off : e->text_off;
        n = raw ? e->raw_len : e->text_len;
        if (n == len && memcmp(v->pool + off, p, len) == 0)
            return &table[i];
    }
}

/* Keeps both tables at most half full with one more entry. */
static void grow_tables(struct ps_vocab *v)
{
    uint32_t cap = v->text_cap ? v->text_cap : 1024;

    if (v->text_cap != 0 && (v->n_ents + 1) * 2 <= v->text_cap)
        return;
    while ((v->n_ents + 1) * 2 > cap)
        cap *= 2;
    ps_free(v->by_text);
    ps_free(v->by_raw);
    v->by_text = ps_calloc(cap, sizeof(uint32_t));
    v->by_raw = ps_calloc(cap, sizeof(uint32_t));
    v->text_cap = v->raw_cap = cap;
    for (uint32_t i = 0; i < v->n_ents; i++) {
        const struct ps_vocab_ent *e = &v->ents[i];

        if (!e->listed)
            continue;
        *slot_of(v->by_text, cap, v, false, ps_vocab_text(v, e), e->text_len) = i + 1;
        if (e->model && e->plain)
            *slot_of(v->by_raw, cap, v, true, ps_vocab_raw(v, e), e->raw_len) = i + 1;
    }
}

static void grow_ids(struct ps_vocab *v, uint32_t id)
{
    uint32_t cap = v->cap_ids ? v->cap_ids : 1024;

    while (cap <= id)
        cap *= 2;
    if (cap > v->cap_ids) {
        v->by_id = ps_realloc(v->by_id, (size_t)cap * sizeof(uint32_t));
        memset(v->by_id + v->cap_ids, 0, (size_t)(cap - v->cap_ids) * sizeof(uint32_t));
        v->cap_ids = cap;
    }
    v->n_id = ps_max_u32(v->n_id, id + 1);
}

/* Appends the entry's bytes: the alphabet undone, or the text itself. */
static void set_raw(struct ps_vocab *v, struct ps_vocab_ent *e)
{
    char *raw = ps_alloc(e->text_len + 1);
    const uint8_t *s = (const uint8_t *)v->pool + e->text_off;
    uint32_t n = 0, i = 0;

    e->plain = true;
    while (i < e->text_len) {
        uint32_t cp;
        int b;

        i += ps_u8_next(s + i, &cp);
        b = alphabet_byte(cp);
        if (b < 0) {
            e->plain = false;
            break;
        }
        raw[n++] = (char)b;
    }
    e->raw_off = e->text_off;
    e->raw_len = e->text_len;
    if (e->plain) {
        e->raw_len = n;
        e->raw_off = pool_add(v, raw, n);
    }
    ps_free(raw);
}

static uint32_t add_ent(struct ps_vocab *v, const char *text, size_t len, uint32_t id, bool model,
                        bool listed)
{
    struct ps_vocab_ent *e;

    PS_ASSERT(len <= UINT32_MAX / 2);
    grow_tables(v);
    if (v->n_ents == v->cap_ents) {
        v->cap_ents = v->cap_ents ? v->cap_ents * 2 : 1024;
        v->ents = ps_realloc(v->ents, (size_t)v->cap_ents * sizeof(*v->ents));
    }
    e = &v->ents[v->n_ents++];
    memset(e, 0, sizeof(*e));
    e->text_off = pool_add(v, text, len);
    e->text_len = (uint32_t)len;
    e->id = id;
    e->model = model;
    e->listed = listed;
    set_raw(v, e);
    if (!listed)
        return v->n_ents;
    *slot_of(v->by_text, v->text_cap, v, false, text, len) = v->n_ents;
    if (e->model && e->plain)
        *slot_of(v->by_raw, v->raw_cap, v, true, ps_vocab_raw(v, e), e->raw_len) = v->n_ents;
    return v->n_ents;
}

bool ps_vocab_add_model(struct ps_vocab *v, const char *text, size_t len, uint32_t id)
{
    if (id >= PS_VOCAB_ID_MAX || ps_vocab_find_text(v, text, len) != PS_VOCAB_NONE)
        return false;
    grow_ids(v, id);
    if (v->by_id[id] != 0)
        return false;
    v->by_id[id] = add_ent(v, text, len, id, true, true);
    v->n_model++;
    return true;
}

bool ps_vocab_add_added(struct ps_vocab *v, const char *text, size_t len, uint32_t id)
{
    if (id >= PS_VOCAB_ID_MAX)
        return false;
    grow_ids(v, id);
    if (ps_vocab_find_text(v, text, len) == PS_VOCAB_NONE)
        v->by_id[id] = add_ent(v, text, len, id, false, true);
    else
        v->by_id[id] = *slot_of(v->by_text, v->text_cap, v, false, text, len);
    return true;
}

void ps_vocab_set_decoded(struct ps_vocab *v, uint32_t id, const char *text, size_t len)
{
    uint32_t same;

    PS_ASSERT(id < v->n_id);
    same = *slot_of(v->by_text, v->text_cap, v, false, text, len);
    v->by_id[id] = add_ent(v, text, len, id, false, false);
    v->ents[v->by_id[id] - 1].special = same != 0 && v->ents[same - 1].special;
}

/* The entry with this string (raw: with these bytes), NULL when there is none. */
static struct ps_vocab_ent *find(const struct ps_vocab *v, bool raw, const char *s, size_t len)
{
    uint32_t cap = raw ? v->raw_cap : v->text_cap, i = 0;

    if (cap > 0)
        i = *slot_of(raw ? v->by_raw : v->by_text, cap, v, raw, s, len);
    return i != 0 ? &v->ents[i - 1] : NULL;
}

void ps_vocab_set_special(struct ps_vocab *v, const char *text, size_t len)
{
    struct ps_vocab_ent *e = find(v, false, text, len);

    if (e != NULL)
        e->special = true;
}

bool ps_vocab_is_special(const struct ps_vocab *v, const char *text, size_t len)
{
    const struct ps_vocab_ent *e = find(v, false, text, len);

    return e != NULL && e->special;
}

uint32_t ps_vocab_find_text(const struct ps_vocab *v, const char *text, size_t len)
{
    const struct ps_vocab_ent *e = find(v, false, text, len);

    return e != NULL ? e->id : PS_VOCAB_NONE;
}

uint32_t ps_vocab_find_raw(const struct ps_vocab *v, const char *raw, size_t len)
{
    const struct ps_vocab_ent *e = find(v, true, raw, len);

    return e != NULL ? e->id : PS_VOCAB_NONE;
}

const struct ps_vocab_ent *ps_vocab_at(const struct ps_vocab *v, uint32_t id)
{
    if (id >= v->n_id || v->by_id[id] == 0)
        return NULL;
    return &v->ents[v->by_id[id] - 1];
}
