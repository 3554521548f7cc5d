#include "common/map.h"

#include "common/hash.h"

#include <string.h>

enum { FIRST_CAP = 16 };

void ps_map_init(struct ps_map *m, uint64_t seed)
{
    *m = (struct ps_map){.seed = seed};
}

void ps_map_fini(struct ps_map *m)
{
    ps_free(m->slots);
    *m = (struct ps_map){.seed = m->seed};
}

static uint32_t home(const struct ps_map *m, uint64_t key)
{
    return (uint32_t)ps_hash64(&key, sizeof(key), m->seed) & (m->cap - 1);
}

/* The slot of key, or the free slot where it would go. Terminates: the load is below 3/4. */
static uint32_t find_slot(const struct ps_map *m, uint64_t key)
{
    uint32_t i = home(m, key);

    while (m->slots[i].used && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

static void resize(struct ps_map *m)
{
    struct ps_map_slot *old = m->slots;
    uint32_t n_old = m->cap;

    PS_ASSERT(m->cap <= UINT32_C(1) << 30);
    m->cap = n_old > 0 ? n_old * 2 : (uint32_t)FIRST_CAP;
    m->slots = ps_calloc(m->cap, sizeof(*m->slots));
    for (uint32_t i = 0; i < n_old; i++) {
        if (old[i].used)
            m->slots[find_slot(m, old[i].key)] = old[i];
    }
    ps_free(old);
}

void ps_map_put(struct ps_map *m, uint64_t key, uint64_t value)
{
    uint32_t i;

    if (m->n + 1 > m->cap / 4 * 3)
        resize(m);
    i = find_slot(m, key);
    if (!m->slots[i].used)
        m->n++;
    m->slots[i] = (struct ps_map_slot){.key = key, .value = value, .used = true};
    PS_ASSERT(m->n < m->cap);
}

bool ps_map_get(const struct ps_map *m, uint64_t key, uint64_t *out_value)
{
    uint32_t i;

    if (m->n == 0)
        return false;
    i = find_slot(m, key);
    if (!m->slots[i].used)
        return false;
    *out_value = m->slots[i].value;
    return true;
}

bool ps_map_del(struct ps_map *m, uint64_t key)
{
    uint32_t mask = m->cap - 1, hole, i;

    if (m->n == 0)
        return false;
    hole = find_slot(m, key);
    if (!m->slots[hole].used)
        return false;
    /* An entry moves back into the hole unless its home lies (cyclically) after the hole. */
    for (i = (hole + 1) & mask; m->slots[i].used; i = (i + 1) & mask) {
        uint32_t h = home(m, m->slots[i].key);

        if (((i - h) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct ps_map_slot){0};
    PS_ASSERT(m->n > 0);
    m->n--;
    return true;
}

void ps_map_clear(struct ps_map *m)
{
    if (m->cap > 0)
        memset(m->slots, 0, m->cap * sizeof(*m->slots));
    m->n = 0;
}
