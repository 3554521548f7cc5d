#include "common/metric.h"

#include "common/json/json.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HIST };

struct ps_hist {
    _Atomic uint64_t sum_bits; /* a double */
    uint32_t n_bounds;
    const double *bounds;
    _Atomic uint64_t *n_in; /* n_bounds + 1: of each bucket alone, not cumulated */
};

struct series {
    struct series *next;
    const char *labels; /* "" for none */
    union {
        struct ps_counter counter;
        struct ps_gauge gauge;
        struct ps_hist hist;
    } u;
};

struct family {
    struct family *next;
    const char *name, *help;
    enum kind kind;
    struct series *first, **end;
};

/* The registry. The lock guards the lists; the values are atomics of their own. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct family *families, **families_end = &families;

static struct family *get_family(const char *name, const char *help, enum kind kind)
{
    struct family *f;

    for (f = families; f != NULL; f = f->next) {
        if (strcmp(f->name, name) == 0) {
            PS_ASSERT(f->kind == kind);
            return f;
        }
    }
    f = ps_calloc(1, sizeof(*f));
    f->name = ps_strdup(name);
    f->help = ps_strdup(help);
    f->kind = kind;
    f->end = &f->first;
    *families_end = f;
    families_end = &f->next;
    return f;
}

/* Called with the lock held. A new series is all zero bits, which is 0 for each type. */
static struct series *get_series(struct family *f, const char *labels, bool *out_new)
{
    struct series *s;

    if (labels == NULL)
        labels = "";
    for (s = f->first; s != NULL; s = s->next) {
        if (strcmp(s->labels, labels) == 0) {
            *out_new = false;
            return s;
        }
    }
    s = ps_calloc(1, sizeof(*s));
    s->labels = ps_strdup(labels);
    *f->end = s;
    f->end = &s->next;
    *out_new = true;
    return s;
}

static struct series *get(const char *name, const char *help, const char *labels, enum kind kind)
{
    struct series *s;
    bool is_new;

    pthread_mutex_lock(&lock);
    s = get_series(get_family(name, help, kind), labels, &is_new);
    pthread_mutex_unlock(&lock);
    return s;
}

struct ps_counter *ps_counter_get(const char *name, const char *help, const char *labels)
{
    return &get(name, help, labels, KIND_COUNTER)->u.counter;
}

struct ps_gauge *ps_gauge_get(const char *name, const char *help, const char *labels)
{
    return &get(name, help, labels, KIND_GAUGE)->u.gauge;
}

struct ps_hist *ps_hist_get(const char *name, const char *help, const char *labels,
                            const double *bounds, uint32_t n_bounds)
{
    struct ps_hist *h;
    bool is_new;

    for (uint32_t i = 0; i < n_bounds; i++)
        PS_ASSERT(isfinite(bounds[i]) && (i == 0 || bounds[i - 1] < bounds[i]));
    pthread_mutex_lock(&lock);
    h = &get_series(get_family(name, help, KIND_HIST), labels, &is_new)->u.hist;
    if (is_new) {
        double *copy = ps_calloc(n_bounds, sizeof(*copy));

        if (n_bounds > 0)
            memcpy(copy, bounds, n_bounds * sizeof(*copy));
        h->bounds = copy;
        h->n_bounds = n_bounds;
        h->n_in = ps_calloc((size_t)n_bounds + 1, sizeof(*h->n_in));
    }
    PS_ASSERT(h->n_bounds == n_bounds);
    pthread_mutex_unlock(&lock);
    return h;
}

static uint64_t bits_of(double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static double of_bits(uint64_t bits)
{
    double v;

    memcpy(&v, &bits, sizeof(v));
    return v;
}

void ps_counter_add(struct ps_counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->v, n, memory_order_relaxed);
}

void ps_gauge_set(struct ps_gauge *g, double v)
{
    atomic_store_explicit(&g->bits, bits_of(v), memory_order_relaxed);
}

void ps_hist_observe(struct ps_hist *h, double v)
{
    uint64_t old = atomic_load_explicit(&h->sum_bits, memory_order_relaxed);
    uint32_t i = 0;

    PS_DASSERT(!isnan(v));
    while (i < h->n_bounds && v > h->bounds[i])
        i++;
    atomic_fetch_add_explicit(&h->n_in[i], 1, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&h->sum_bits, &old, bits_of(of_bits(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

uint64_t ps_counter_value(const struct ps_counter *c)
{
    return atomic_load_explicit(&c->v, memory_order_relaxed);
}

double ps_gauge_value(const struct ps_gauge *g)
{
    return of_bits(atomic_load_explicit(&g->bits, memory_order_relaxed));
}

uint64_t ps_hist_count(const struct ps_hist *h)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i <= h->n_bounds; i++)
        n += atomic_load_explicit(&h->n_in[i], memory_order_relaxed);
    return n;
}

double ps_hist_sum(const struct ps_hist *h)
{
    return of_bits(atomic_load_explicit(&h->sum_bits, memory_order_relaxed));
}

static void write_double(struct ps_buf *out, double v)
{
    if (isfinite(v))
        ps_json_add_double(out, v);
    else
        ps_buf_add_str(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
}

/* "name_suffix{labels} ", the braces only when there is something in them. */
static void write_name(struct ps_buf *out, const char *name, const char *suffix, const char *labels)
{
    ps_buf_addf(out, "%s%s", name, suffix);
    if (labels[0] != '\0')
        ps_buf_addf(out, "{%s}", labels);
    ps_buf_add_byte(out, ' ');
}

/* _count is the last cumulated bucket, so that the two agree while others observe. */
static void write_hist(struct ps_buf *out, const char *name, const char *labels,
                       const struct ps_hist *h)
{
    const char *comma = labels[0] != '\0' ? "," : "";
    uint64_t n = 0;

    for (uint32_t i = 0; i <= h->n_bounds; i++) {
        n += atomic_load_explicit(&h->n_in[i], memory_order_relaxed);
        ps_buf_addf(out, "%s_bucket{%s%sle=\"", name, labels, comma);
        write_double(out, i < h->n_bounds ? h->bounds[i] : INFINITY);
        ps_buf_addf(out, "\"} %llu\n", (unsigned long long)n);
    }
    write_name(out, name, "_sum", labels);
    write_double(out, ps_hist_sum(h));
    ps_buf_add_byte(out, '\n');
    write_name(out, name, "_count", labels);
    ps_buf_addf(out, "%llu\n", (unsigned long long)n);
}

static void write_help(struct ps_buf *out, const struct family *f)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};

    ps_buf_addf(out, "# HELP %s ", f->name);
    for (const char *p = f->help; *p != '\0'; p++) {
        if (*p == '\n')
            ps_buf_add_str(out, "\\n");
        else if (*p == '\\')
            ps_buf_add_str(out, "\\\\");
        else
            ps_buf_add_byte(out, *p);
    }
    ps_buf_addf(out, "\n# TYPE %s %s\n", f->name, types[f->kind]);
}

void ps_metric_write(struct ps_buf *out)
{
    pthread_mutex_lock(&lock);
    for (const struct family *f = families; f != NULL; f = f->next) {
        write_help(out, f);
        for (const struct series *s = f->first; s != NULL; s = s->next) {
            if (f->kind == KIND_HIST) {
                write_hist(out, f->name, s->labels, &s->u.hist);
                continue;
            }
            write_name(out, f->name, "", s->labels);
            if (f->kind == KIND_COUNTER)
                ps_buf_addf(out, "%llu", (unsigned long long)ps_counter_value(&s->u.counter));
            else
                write_double(out, ps_gauge_value(&s->u.gauge));
            ps_buf_add_byte(out, '\n');
        }
    }
    pthread_mutex_unlock(&lock);
}
