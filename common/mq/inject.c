#include "common/mq/inject.h"

#include <stdlib.h>
#include <string.h>

#include "common/mq/mq.h"
#include "common/rng.h"

enum { WAITING_MAX = 65536 };

struct held {
    struct held *next;
    uint64_t due_us, tag;
    size_t id_len, len;
    uint8_t id[PS_MQ_ID_MAX];
    uint8_t data[];
};

struct ps_inject {
    struct ps_rng rng;
    double drop, dup, delay, late;
    double seed, delay_ms, late_ms;
    struct held *held; /* by due_us */
    uint32_t n_held;
};

static bool set_key(struct ps_inject *i, const char *key, size_t len, double v)
{
    const struct {
        const char *name;
        double *field, max;
    } keys[] = {
        {"seed", &i->seed, 1e15},        {"drop", &i->drop, 1}, {"dup", &i->dup, 1},
        {"delay", &i->delay, 1},         {"late", &i->late, 1}, {"delay_ms", &i->delay_ms, 60000},
        {"late_ms", &i->late_ms, 60000},
    };

    for (size_t k = 0; k < PS_ARRAY_LEN(keys); k++) {
        if (strlen(keys[k].name) == len && memcmp(keys[k].name, key, len) == 0) {
            *keys[k].field = v;
            return v >= 0 && v <= keys[k].max;
        }
    }
    return false;
}

int ps_inject_create(struct ps_inject **out, const char *text, uint64_t salt)
{
    struct ps_inject *i;

    if (text[0] == '\0') {
        *out = NULL;
        return PS_INJECT_OK;
    }
    i = ps_calloc(1, sizeof(*i));
    while (*text != '\0') {
        const char *eq = strchr(text, '=');
        char *end = NULL;
        double v = eq != NULL ? strtod(eq + 1, &end) : 0;

        if (eq == NULL || end == eq + 1 || (*end != ',' && *end != '\0') ||
            !set_key(i, text, (size_t)(eq - text), v)) {
            ps_free(i);
            return PS_INJECT_E_BAD;
        }
        text = *end == ',' ? end + 1 : end;
    }
    ps_rng_seed(&i->rng, (uint64_t)i->seed * 1000003u + salt);
    *out = i;
    return PS_INJECT_OK;
}

void ps_inject_destroy(struct ps_inject *i)
{
    if (i == NULL)
        return;
    while (i->held != NULL) {
        struct held *h = i->held;

        i->held = h->next;
        ps_free(h);
    }
    ps_free(i);
}

static void hold(struct ps_inject *i, uint64_t due_us, uint64_t tag, const uint8_t *id,
                 size_t id_len, const uint8_t *data, size_t len)
{
    struct held **at = &i->held, *h;

    PS_ASSERT(id_len <= PS_MQ_ID_MAX);
    if (i->n_held >= WAITING_MAX)
        return; /* one more dropped message */
    h = ps_alloc(sizeof(*h) + len);
    h->due_us = due_us;
    h->tag = tag;
    h->id_len = id_len;
    h->len = len;
    if (id_len > 0)
        memcpy(h->id, id, id_len);
    memcpy(h->data, data, len);
    while (*at != NULL && (*at)->due_us <= due_us)
        at = &(*at)->next;
    h->next = *at;
    *at = h;
    i->n_held++;
}

void ps_inject_pass(struct ps_inject *i, uint64_t now_us, uint64_t tag, const uint8_t *id,
                    size_t id_len, const uint8_t *data, size_t len, ps_inject_fn fn, void *ud)
{
    double u = ps_rng_unit(&i->rng);
    double wait_ms = 0;

    if (u < i->drop)
        return;
    if (u < i->drop + i->dup)
        hold(i, now_us + (uint64_t)(ps_rng_unit(&i->rng) * i->delay_ms * 1e3), tag, id, id_len,
             data, len);
    else if (u < i->drop + i->dup + i->delay)
        wait_ms = ps_rng_unit(&i->rng) * i->delay_ms;
    else if (u < i->drop + i->dup + i->delay + i->late)
        wait_ms = ps_rng_unit(&i->rng) * i->late_ms;
    if (wait_ms > 0)
        hold(i, now_us + (uint64_t)(wait_ms * 1e3), tag, id, id_len, data, len);
    else
        fn(ud, tag, id, id_len, data, len);
}

void ps_inject_due(struct ps_inject *i, uint64_t now_us, ps_inject_fn fn, void *ud)
{
    while (i->held != NULL && i->held->due_us <= now_us) {
        struct held *h = i->held;

        i->held = h->next;
        i->n_held--;
        fn(ud, h->tag, h->id, h->id_len, h->data, h->len); /* may purge: h is out of the list */
        ps_free(h);
    }
}

void ps_inject_purge(struct ps_inject *i, uint64_t tag)
{
    struct held **at = &i->held;

    while (*at != NULL) {
        struct held *h = *at;

        if (h->tag == tag) {
            *at = h->next;
            i->n_held--;
            ps_free(h);
        } else {
            at = &h->next;
        }
    }
}
