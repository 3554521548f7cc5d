#include "router/stats_kv.h"

#include <stddef.h>

#include "router/fleet/fleet.h"

enum kind { GAUGE, COUNTER, MICROSECONDS /* a counter, told in seconds */ };

struct field { /* a uint64_t of a struct: a family of metrics and a member in JSON */
    const char *family, *key, *help;
    size_t at;
    enum kind kind;
};

#define FIELD(s, name, of, what, text) \
    { \
        .family = (of), .key = #name, .help = (text), .at = offsetof(s, name), .kind = what \
    }

#define TIER(name, of, what, text) \
    FIELD(struct pb_kv_tier, name, "penstock_kv_tier_" of, what, text)
static const struct field tier_fields[] = {
    TIER(pages, "pages", GAUGE, "Pages a KV tier has room for; 0 where others keep them too."),
    TIER(free_pages, "free_pages", GAUGE, "Pages of a KV tier that hold nothing."),
    TIER(idle_pages, "idle_pages", GAUGE, "Pages of a KV tier that go when room is needed."),
    TIER(queued_moves, "queued_moves", GAUGE, "Moves of a KV tier in flight or waiting."),
    TIER(fetched_tokens, "fetched_tokens_total", COUNTER, "Tokens brought to T0 from a KV tier."),
    TIER(cleaned_pages, "cleaned_pages_total", COUNTER, "Pages copied to a KV tier."),
    TIER(evicted_pages, "evicted_pages_total", COUNTER, "Pages a KV tier forgot to make room."),
    TIER(lost_pages, "lost_pages_total", COUNTER, "Evicted pages of which no other copy was left."),
    TIER(read_bytes, "read_bytes_total", COUNTER, "Bytes read from a KV tier."),
    TIER(useful_bytes, "useful_bytes_total", COUNTER, "Bytes read that reached T0."),
    TIER(write_bytes, "write_bytes_total", COUNTER, "Bytes written to a KV tier."),
    TIER(read_bytes_per_s, "read_bytes_per_second", GAUGE, "Mean speed of reads while they last."),
    TIER(write_bytes_per_s, "write_bytes_per_second", GAUGE,
         "Mean speed of writes while they last."),
    TIER(n_bad, "bad_pages_total", COUNTER, "Pages that failed their verification."),
    TIER(n_fault, "fault_pages_total", COUNTER, "Pages that could not be read or written."),
    TIER(n_full, "full_pages_total", COUNTER, "Pages not written because there was no space."),
};
#undef TIER

#define STORE(name, of, what, text) FIELD(struct pb_kv_load, name, "penstock_kv_" of, what, text)
static const struct field store_fields[] = {
    STORE(n_fetch, "fetches_total", COUNTER, "Requests that began to fetch pages."),
    STORE(n_fetch_late, "fetches_late_total", COUNTER, "Fetches given up: they took too long."),
    STORE(n_fetch_failed, "fetches_failed_total", COUNTER, "Fetches whose pages did not come."),
    STORE(fetch_wait_us, "fetch_wait_seconds_total", MICROSECONDS,
          "Time that requests waited for their pages."),
    STORE(n_probe, "probes_total", COUNTER, "Prompts that others were asked about."),
    STORE(n_probe_late, "probes_late_total", COUNTER, "Of these, not answered in time."),
    STORE(probe_found_tokens, "probe_found_tokens_total", COUNTER, "Tokens found by asking."),
};
#undef STORE

#define GROUP(name, of, text) FIELD(struct pb_kv_group, name, "penstock_kv_group_" of, GAUGE, text)
static const struct field group_fields[] = {
    GROUP(n_total, "items", "Items of a group that T0 has room for; group 0: pages."),
    GROUP(n_free, "free_items", "Items that hold nothing."),
    GROUP(n_evictable, "evictable_items", "Items that go when room is needed."),
    GROUP(n_pinned, "pinned_items", "Items that somebody holds."),
    GROUP(n_growth, "growth_items", "Items that admitted requests may still take."),
    GROUP(n_suspended, "suspended_requests", "Requests that gave their items back."),
};
#undef GROUP

#define LOAD(name, of, text) FIELD(struct pb_load, name, "penstock_worker_" of, COUNTER, text)
static const struct field load_fields[] = {
    LOAD(prompt_tokens, "prompt_tokens_total", "Prompt tokens a worker was sent."),
    LOAD(cached_tokens, "cached_tokens_total", "Of these, found in its KV store."),
    LOAD(followed_tokens, "followed_tokens_total", "Of these, computed by another meanwhile."),
    LOAD(resume_tokens, "resume_tokens_total", "Tokens computed again after a suspension."),
};
#undef LOAD

static const char *const tier_names[PB_KV_N_TIERS] = {"t0", "t1", "t2", "t3", "peer"};

static uint64_t get(const void *base, const struct field *f)
{
    return *(const uint64_t *)(const void *)((const char *)base + f->at);
}

/* ---- metrics ---- */

struct seen { /* one worker */
    struct rt_worker w;
    struct pb_kv_load kv;
};

struct text {
    struct ps_buf *out;
    const char *labels;
};

static void head(const struct text *t, const char *family, enum kind kind, const char *help)
{
    ps_buf_addf(t->out, "# HELP %s %s\n# TYPE %s %s\n", family, help, family,
                kind == GAUGE ? "gauge" : "counter");
}

/* "family{labels,worker="3"" */
static void name(const struct text *t, const char *family, const struct seen *s)
{
    ps_buf_addf(t->out, "%s{%s,worker=\"%u\"", family, t->labels, s->w.slot);
}

static void number(const struct text *t, const struct field *f, const void *base)
{
    uint64_t v = get(base, f);

    if (f->kind == MICROSECONDS)
        ps_buf_addf(t->out, "} %lu.%06lu\n", (unsigned long)(v / 1000000),
                    (unsigned long)(v % 1000000));
    else
        ps_buf_addf(t->out, "} %lu\n", (unsigned long)v);
}

static void write_workers(const struct text *t, const struct seen *seen, uint32_t n)
{
    for (size_t k = 0; k < PS_ARRAY_LEN(load_fields); k++) {
        head(t, load_fields[k].family, load_fields[k].kind, load_fields[k].help);
        for (uint32_t i = 0; i < n; i++) {
            name(t, load_fields[k].family, &seen[i]);
            number(t, &load_fields[k], &seen[i].w.load);
        }
    }
    for (size_t k = 0; k < PS_ARRAY_LEN(store_fields); k++) {
        head(t, store_fields[k].family, store_fields[k].kind, store_fields[k].help);
        for (uint32_t i = 0; i < n; i++) {
            name(t, store_fields[k].family, &seen[i]);
            number(t, &store_fields[k], &seen[i].kv);
        }
    }
}

static void write_groups(const struct text *t, const struct seen *seen, uint32_t n)
{
    for (size_t k = 0; k < PS_ARRAY_LEN(group_fields); k++) {
        head(t, group_fields[k].family, group_fields[k].kind, group_fields[k].help);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t g = 0; g < seen[i].w.load.n_group; g++) {
                name(t, group_fields[k].family, &seen[i]);
                ps_buf_addf(t->out, ",group=\"%u\"", g);
                number(t, &group_fields[k], &seen[i].w.load.group[g]);
            }
        }
    }
}

static void write_tiers(const struct text *t, const struct seen *seen, uint32_t n)
{
    static const char open[] = "penstock_kv_tier_open";

    head(t, open, GAUGE, "1 while a KV tier is used, 0 once it was given up.");
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < seen[i].kv.n_tier; k++) {
            name(t, open, &seen[i]);
            ps_buf_addf(t->out, ",tier=\"%s\"} %d\n", tier_names[seen[i].kv.tier[k].id],
                        seen[i].kv.tier[k].is_open);
        }
    }
    for (size_t f = 0; f < PS_ARRAY_LEN(tier_fields); f++) {
        head(t, tier_fields[f].family, tier_fields[f].kind, tier_fields[f].help);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t k = 0; k < seen[i].kv.n_tier; k++) {
                name(t, tier_fields[f].family, &seen[i]);
                ps_buf_addf(t->out, ",tier=\"%s\"", tier_names[seen[i].kv.tier[k].id]);
                number(t, &tier_fields[f], &seen[i].kv.tier[k]);
            }
        }
    }
}

void rt_stats_kv_metrics(const struct rt_fleet *f, const char *labels, struct ps_buf *out)
{
    const struct text t = {.out = out, .labels = labels};
    uint32_t n = 0, n_slots = rt_fleet_n_slots(f);
    struct seen *seen = ps_calloc(n_slots + 1, sizeof(*seen)); /* RT_MAX_WORKERS at most */

    for (uint32_t i = 0; i < n_slots; i++) {
        struct seen *s = &seen[n];

        if (rt_fleet_worker(f, i, &s->w) && s->w.state != RT_W_ABSENT && s->w.state != RT_W_DEAD &&
            rt_fleet_kv(f, i, &s->kv))
            n++;
    }
    write_workers(&t, seen, n);
    write_groups(&t, seen, n);
    write_tiers(&t, seen, n);
    ps_free(seen);
}

/* ---- JSON ---- */

static void members(struct ps_buf *out, const struct field *f, size_t n, const void *base)
{
    for (size_t i = 0; i < n; i++)
        ps_buf_addf(out, ",\"%s\":%lu", f[i].key, (unsigned long)get(base, &f[i]));
}

void rt_stats_kv_json(const struct rt_fleet *f, const struct rt_worker *w, struct ps_buf *out)
{
    struct pb_kv_load kv = {0};

    (void)rt_fleet_kv(f, w->slot, &kv); /* nothing yet: no tiers */
    members(out, load_fields, PS_ARRAY_LEN(load_fields), &w->load);
    ps_buf_add_str(out, ",\"kv_groups\":[");
    for (uint32_t g = 0; g < w->load.n_group; g++) {
        ps_buf_addf(out, "%s{\"group\":%u", g > 0 ? "," : "", g);
        members(out, group_fields, PS_ARRAY_LEN(group_fields), &w->load.group[g]);
        ps_buf_add_byte(out, '}');
    }
    ps_buf_add_str(out, "],\"kv_tiers\":[");
    for (uint32_t i = 0; i < kv.n_tier; i++) {
        ps_buf_addf(out, "%s{\"tier\":\"%s\",\"open\":%s", i > 0 ? "," : "",
                    tier_names[kv.tier[i].id], kv.tier[i].is_open ? "true" : "false");
        members(out, tier_fields, PS_ARRAY_LEN(tier_fields), &kv.tier[i]);
        ps_buf_add_byte(out, '}');
    }
    ps_buf_add_byte(out, ']');
    members(out, store_fields, PS_ARRAY_LEN(store_fields), &kv);
}
