#include "worker/tier/disk_scan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { GROUPS_MAX = 4 };

struct entry {
    struct entry *next;
    struct wk_kv_key key; /* ids: below */
    uint32_t slot;
    uint32_t ids[];
};

struct node { /* a page that was told */
    struct node *next;
    uint8_t digest[PS_SHA256_BYTES];
    uint64_t seed;
    uint32_t end_pos, groups; /* groups: bit mask */
};

struct wk_disk_scan {
    uint64_t space_id;
    uint32_t n_group, n_slot[GROUPS_MAX];
    _Atomic uint8_t *may_write[GROUPS_MAX]; /* [n_slot] */
    _Atomic bool is_stopped;

    /* the tier's thread */
    uint32_t group, slot;   /* next to read */
    uint32_t n_buckets;     /* of both tables; power of two */
    struct node **told;     /* by digest */
    struct entry **waiting; /* by digest of the parent */

    pthread_mutex_t lock; /* of what follows */
    struct entry *first, *last;
    bool is_finished;
};

struct wk_disk_scan *wk_disk_scan_create(uint64_t space_id, const uint32_t *n_slot,
                                         uint32_t n_group)
{
    struct wk_disk_scan *s = ps_calloc(1, sizeof(*s));
    uint64_t n = 0;

    PS_ASSERT(n_group > 0 && n_group <= GROUPS_MAX);
    s->space_id = space_id;
    s->n_group = n_group;
    for (uint32_t g = 0; g < n_group; g++) {
        s->n_slot[g] = n_slot[g];
        s->may_write[g] = ps_calloc(n_slot[g], sizeof(*s->may_write[g]));
        n += n_slot[g];
    }
    for (s->n_buckets = 16; s->n_buckets < n && s->n_buckets < UINT32_C(1) << 30;)
        s->n_buckets *= 2;
    s->told = ps_calloc(s->n_buckets, sizeof(struct node *));
    s->waiting = ps_calloc(s->n_buckets, sizeof(struct entry *));
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

static void free_entries(struct entry *e)
{
    while (e != NULL) {
        struct entry *next = e->next;

        ps_free(e);
        e = next;
    }
}

static void set_may_write(struct wk_disk_scan *s, uint32_t group, uint32_t slot)
{
    PS_ASSERT(group < s->n_group && slot < s->n_slot[group]);
    atomic_store_explicit(&s->may_write[group][slot], 1, memory_order_release);
}

/* The tables are needed while headers come in, and large; what waits in them has no path. */
static void drop_tables(struct wk_disk_scan *s)
{
    if (s->told == NULL)
        return;
    for (uint32_t b = 0; b < s->n_buckets; b++) {
        for (struct entry *e = s->waiting[b]; e != NULL; e = e->next)
            set_may_write(s, e->key.group, e->slot);
        free_entries(s->waiting[b]);
        while (s->told[b] != NULL) {
            struct node *n = s->told[b];

            s->told[b] = n->next;
            ps_free(n);
        }
    }
    ps_free(s->told);
    ps_free(s->waiting);
    s->told = NULL;
    s->waiting = NULL;
}

void wk_disk_scan_destroy(struct wk_disk_scan *s)
{
    if (s == NULL)
        return;
    drop_tables(s);
    free_entries(s->first);
    for (uint32_t g = 0; g < s->n_group; g++)
        ps_free((void *)s->may_write[g]);
    pthread_mutex_destroy(&s->lock);
    ps_free(s);
}

void wk_disk_scan_skip(struct wk_disk_scan *s, uint32_t group)
{
    for (uint32_t i = 0; i < s->n_slot[group]; i++)
        set_may_write(s, group, i);
    s->n_slot[group] = 0;
}

bool wk_disk_scan_next(struct wk_disk_scan *s, uint32_t *out_group, uint32_t *out_slot)
{
    if (atomic_load_explicit(&s->is_stopped, memory_order_acquire))
        return false;
    while (s->group < s->n_group && s->slot == s->n_slot[s->group]) {
        s->group++;
        s->slot = 0;
    }
    if (s->group == s->n_group)
        return false;
    *out_group = s->group;
    *out_slot = s->slot++;
    return true;
}

/* ---- paths ---- */

static uint32_t bucket_of(const struct wk_disk_scan *s, const uint8_t *digest)
{
    uint32_t v;

    memcpy(&v, digest, sizeof(v)); /* SHA-256 needs no mixing */
    return v & (s->n_buckets - 1);
}

static struct node *find_told(struct wk_disk_scan *s, const uint8_t *digest)
{
    struct node *n = s->told[bucket_of(s, digest)];

    while (n != NULL && memcmp(n->digest, digest, PS_SHA256_BYTES) != 0)
        n = n->next;
    return n;
}

static bool begins_a_path(const struct wk_disk_scan *s, const struct wk_kv_key *key)
{
    uint8_t root[PS_SHA256_BYTES];

    if (key->first_pos != 0)
        return false;
    wk_kv_root_digest(s->space_id, key->seed, root);
    return memcmp(key->parent, root, PS_SHA256_BYTES) == 0;
}

static struct entry *entry_create(const struct wk_kv_key *key, uint32_t slot)
{
    struct entry *e = ps_alloc(sizeof(*e) + key->n_tok * sizeof(uint32_t));

    e->next = NULL;
    e->key = *key;
    memcpy(e->ids, key->ids, key->n_tok * sizeof(uint32_t));
    e->key.ids = e->ids;
    e->slot = slot;
    return e;
}

static void drop_entry(struct wk_disk_scan *s, struct entry *e)
{
    set_may_write(s, e->key.group, e->slot);
    ps_free(e);
}

static void push_ready(struct wk_disk_scan *s, struct entry *e)
{
    e->next = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->last != NULL)
        s->last->next = e;
    else
        s->first = e;
    s->last = e;
    pthread_mutex_unlock(&s->lock);
}

/* Takes those that waited for this page out of the table, in front of list. */
static struct entry *release(struct wk_disk_scan *s, const struct node *n, struct entry *list)
{
    struct entry **at = &s->waiting[bucket_of(s, n->digest)];

    while (*at != NULL) {
        struct entry *e = *at;

        if (memcmp(e->key.parent, n->digest, PS_SHA256_BYTES) != 0) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        if (e->key.seed == n->seed && e->key.first_pos == n->end_pos) {
            e->next = list;
            list = e;
        } else {
            drop_entry(s, e);
        }
    }
    return list;
}

/* Tells an entry whose parent was told, and then all that waited for it, and so on. */
static bool tell(struct wk_disk_scan *s, struct entry *list)
{
    bool is_new = false;

    while (list != NULL) {
        struct entry *e = list;
        struct node *n = find_told(s, e->key.digest);

        list = e->next;
        if (n != NULL && (n->groups & 1u << e->key.group) != 0) { /* the same item once more */
            drop_entry(s, e);
            continue;
        }
        if (n == NULL) {
            uint32_t b = bucket_of(s, e->key.digest);

            n = ps_calloc(1, sizeof(*n));
            memcpy(n->digest, e->key.digest, PS_SHA256_BYTES);
            n->seed = e->key.seed;
            n->end_pos = e->key.first_pos + e->key.n_tok;
            n->next = s->told[b];
            s->told[b] = n;
        }
        n->groups |= 1u << e->key.group;
        push_ready(s, e);
        is_new = true;
        list = release(s, n, list);
    }
    return is_new;
}

bool wk_disk_scan_take(struct wk_disk_scan *s, uint32_t group, uint32_t slot,
                       const struct wk_kv_key *key)
{
    uint8_t digest[PS_SHA256_BYTES];
    const struct node *parent;
    struct entry *e;
    uint32_t b;

    if (atomic_load_explicit(&s->is_stopped, memory_order_acquire))
        return false;
    if (key != NULL)
        wk_kv_digest(key->parent, key->ids, key->n_tok, digest);
    if (key == NULL || memcmp(digest, key->digest, PS_SHA256_BYTES) != 0) {
        set_may_write(s, group, slot);
        return false;
    }
    PS_ASSERT(key->group == group);
    e = entry_create(key, slot);
    if (begins_a_path(s, key))
        return tell(s, e);
    parent = find_told(s, key->parent);
    if (parent == NULL) {
        b = bucket_of(s, key->parent);
        e->next = s->waiting[b];
        s->waiting[b] = e;
        return false;
    }
    if (parent->seed != key->seed || parent->end_pos != key->first_pos) {
        drop_entry(s, e);
        return false;
    }
    return tell(s, e);
}

void wk_disk_scan_finish(struct wk_disk_scan *s)
{
    drop_tables(s);
    pthread_mutex_lock(&s->lock);
    s->is_finished = true;
    pthread_mutex_unlock(&s->lock);
}

/* ---- scheduler ---- */

int wk_disk_scan_pop(struct wk_disk_scan *s, struct wk_disk_found *out)
{
    struct entry *e;
    bool is_over;

    pthread_mutex_lock(&s->lock);
    is_over = s->is_finished || atomic_load_explicit(&s->is_stopped, memory_order_relaxed);
    e = atomic_load_explicit(&s->is_stopped, memory_order_relaxed) ? NULL : s->first;
    if (e != NULL) {
        s->first = e->next;
        if (s->first == NULL)
            s->last = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    if (e == NULL)
        return is_over ? WK_DISK_SCAN_E_OVER : WK_DISK_SCAN_E_NONE;
    PS_ASSERT(e->key.n_tok <= PS_ARRAY_LEN(out->ids));
    out->key = e->key;
    out->slot = e->slot;
    memcpy(out->ids, e->ids, e->key.n_tok * sizeof(uint32_t));
    out->key.ids = out->ids;
    drop_entry(s, e);
    return WK_DISK_SCAN_OK;
}

bool wk_disk_scan_may_write(const struct wk_disk_scan *s, uint32_t group, uint32_t slot)
{
    PS_ASSERT(group < s->n_group);
    return atomic_load_explicit(&s->is_stopped, memory_order_acquire) ||
           atomic_load_explicit(&s->may_write[group][slot], memory_order_acquire) != 0;
}

void wk_disk_scan_stop(struct wk_disk_scan *s)
{
    atomic_store_explicit(&s->is_stopped, true, memory_order_release);
}
