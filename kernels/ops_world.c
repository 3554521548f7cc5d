#include "kernels/ops_world.h"

#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/test.h"

struct world *the_world;

static struct guard {
    struct guard *next;
    uint8_t *map;
    size_t map_bytes;
} * guards;

void *guard_new(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n_bytes + page - 1) / page * page;
    struct guard *g = ps_alloc(sizeof *g);

    g->map_bytes = body + page;
    g->map = mmap(NULL, g->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    PS_ASSERT(g->map != MAP_FAILED && mprotect(g->map + body, page, PROT_NONE) == 0);
    g->next = guards;
    guards = g;
    return g->map + body - n_bytes;
}

void guard_free_all(void)
{
    while (guards) {
        struct guard *g = guards;

        guards = g->next;
        PS_ASSERT(munmap(g->map, g->map_bytes) == 0);
        ps_free(g);
    }
}

void world_open(struct world *w, bool full)
{
    static const char *const isa[] = {"scalar", "avx2", "avx512", "amx"};
    static const uint32_t n_threads[] = {1, 2, 3};
    struct kn_dev_conf conf = {0};

    *w = (struct world){.ref = kn_backend_ref(), .cpu = kn_backend_cpu(), .full = full};
    ps_rng_seed(&w->rng, 20240229);
    PS_ASSERT(w->ref->open(&w->ref_dev, &conf) == KN_OK);
    for (size_t i = 0; i < PS_ARRAY_LEN(isa); i++)
        for (size_t t = 0; t < PS_ARRAY_LEN(n_threads); t++) {
            int r;

            conf = (struct kn_dev_conf){.n_threads = n_threads[t], .isa = isa[i]};
            r = w->cpu->open(&w->dev[w->n_dev], &conf);
            if (r == KN_E_UNSUPPORTED) {
                printf("# skip: no %s\n", isa[i]);
                break;
            }
            PS_ASSERT(r == KN_OK);
            w->n_dev++;
        }
}

void world_close(struct world *w)
{
    for (uint32_t i = 0; i < w->n_dev; i++)
        w->cpu->close(w->dev[i]);
    w->ref->close(w->ref_dev);
}

float world_value(struct world *w, enum temper t)
{
    uint32_t u = (uint32_t)ps_rng_u64(&w->rng);
    float unit = (float)(ps_rng_unit(&w->rng) * 4 - 2);

    switch (t) {
    case WIDE:
        if (u % 997 == 0)
            return u & 1u << 20 ? INFINITY : -INFINITY;
        return kn_bits_f32((u & 0x807fffffu) | (u >> 3 & 0xffu) % 255 << 23);
    case TINY:
        return kn_bits_f32((u & 0x807fffffu) | (50 + (u >> 3) % 20) << 23);
    case CANCEL:
        return (u & 1 ? 1.0f : -1.0f) * 4096.0f + unit;
    case MODERATE:
    case N_TEMPER:
        break;
    }
    return unit;
}

void *world_values(struct world *w, enum kn_dtype type, size_t n, enum temper t)
{
    uint8_t *p = guard_new(n * kn_dtype_bytes(type));

    for (size_t i = 0; i < n; i++) {
        float f = world_value(w, t);
        uint32_t h = kn_f32_bf16(f);

        if (type == KN_F32)
            memcpy(p + i * 4, &f, 4);
        if (type == KN_F16) /* any bits but NaN; moderate ones near 1 */
            h = t == MODERATE ? (h & 0x83ffu) | (12 + h % 4) << 10 : h & 0xfbffu;
        if (type != KN_F32)
            memcpy(p + i * 2, &h, 2);
    }
    return p;
}

float value_at(const void *p, enum kn_dtype type, size_t i)
{
    uint16_t h;
    float f;

    memcpy(&f, (const uint8_t *)p + i * 4, type == KN_F32 ? 4 : 0);
    if (type == KN_F32)
        return f;
    memcpy(&h, (const uint8_t *)p + i * 2, 2);
    return type == KN_BF16 ? kn_bf16_f32(h) : kn_f16_f32(h);
}

const char *dtype_name(enum kn_dtype t)
{
    return t == KN_F32 ? "f32" : t == KN_BF16 ? "bf16" : "f16";
}

void same_bits(const char *what, const char *dev, const void *want, const void *got,
               enum kn_dtype type, size_t n)
{
    size_t size = kn_dtype_bytes(type);

    for (size_t i = 0; i < n; i++) {
        float a, b;

        if (memcmp((const uint8_t *)want + i * size, (const uint8_t *)got + i * size, size) == 0)
            continue;
        a = value_at(want, type, i);
        b = value_at(got, type, i);
        if (isnan(a) && isnan(b))
            continue;
        fail_msg("%s on %s: element %zu of %zu: want %.9g (%08x), got %.9g (%08x)", what, dev, i, n,
                 (double)a, kn_f32_bits(a), (double)b, kn_f32_bits(b));
    }
}

void near_to(const char *what, double want, double got, double tolerance)
{
    if (!(fabs(want - got) <= tolerance))
        fail_msg("%s: want %.9g, got %.9g, tolerance %.3g", what, want, got, tolerance);
}

struct world_kv world_kv(struct world *w, enum kn_dtype fmt, uint32_t page_shift,
                         uint32_t n_kv_head, uint32_t d_head, const uint32_t *seq_len,
                         uint32_t n_seq, bool filled)
{
    struct world_kv kv = {
        .view = {.page_shift = (uint8_t)page_shift, .fmt = (uint8_t)fmt, .ratio = 1}};
    struct kn_kv_view *v = &kv.view;
    uint32_t *table, *order, at = 0;

    for (uint32_t s = 0; s < n_seq; s++) {
        uint32_t n = (seq_len[s] + (1u << page_shift) - 1) >> page_shift;

        kv.n_page += n;
        v->table_stride = ps_max_u32(v->table_stride, n);
    }
    v->row_stride = d_head * (uint32_t)kn_dtype_bytes(fmt);
    v->head_stride = v->row_stride << page_shift;
    v->item_stride = 2ull * n_kv_head * v->head_stride;
    kv.arena_bytes = kv.n_page * v->item_stride;
    if (filled)
        v->arena = world_values(w, fmt, kv.arena_bytes / kn_dtype_bytes(fmt), MODERATE);
    else
        v->arena = guard_new(kv.arena_bytes);
    order = guard_new(kv.n_page * sizeof *order);
    for (uint32_t i = 0; i < kv.n_page; i++) {
        uint32_t j = (uint32_t)ps_rng_below(&w->rng, i + 1);

        order[i] = order[j];
        order[j] = i;
    }
    table = guard_new((size_t)n_seq * v->table_stride * sizeof *table);
    for (uint32_t s = 0; s < n_seq; s++)
        for (uint32_t i = 0; i < v->table_stride; i++)
            table[s * v->table_stride + i] =
                i << page_shift < seq_len[s] ? order[at++] : UINT32_MAX; /* a wild page faults */
    v->table = table;
    return kv;
}
