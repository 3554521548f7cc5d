#include "bench/agent/session.h"

#include <string.h>

#include "common/hash.h"

static const uint64_t magic = UINT64_C(0x3130746e65674150); /* "PAgent01" */

static void append(struct bn_session *x, uint32_t n)
{
    PS_ASSERT(n <= BN_HISTORY_MAX && x->n <= BN_HISTORY_MAX - n);
    if (x->n + n > x->cap) {
        x->cap = ps_max_u32(x->n + n, x->cap * 2);
        x->ids = ps_realloc(x->ids, x->cap * sizeof(x->ids[0]));
    }
    x->n += n;
}

void bn_sessions_init(struct bn_sessions *s, const struct bn_sessions_conf *conf)
{
    PS_ASSERT(conf->n > 0 && conf->n_groups > 0 && conf->n_first > 0);
    s->conf = *conf;
    s->v = ps_calloc(conf->n, sizeof(s->v[0]));
    s->group_known = ps_calloc(conf->n_groups, sizeof(s->group_known[0]));
    for (uint32_t i = 0; i < conf->n; i++) {
        struct bn_session *x = &s->v[i];

        x->number = i;
        x->group = i % conf->n_groups;
        append(x, conf->n_system + conf->n_first);
        bn_draw_ids(&conf->vocab, BN_STREAM_PREFIX, x->group, x->ids, conf->n_system);
        bn_draw_ids(&conf->vocab, BN_STREAM_OWN, i, x->ids + conf->n_system, conf->n_first);
    }
}

void bn_sessions_fini(struct bn_sessions *s)
{
    for (uint32_t i = 0; s->v != NULL && i < s->conf.n; i++)
        ps_free(s->v[i].ids);
    ps_free(s->v);
    ps_free(s->group_known);
    s->v = NULL;
    s->group_known = NULL;
}

uint32_t bn_session_avoidable(const struct bn_sessions *s, const struct bn_session *x)
{
    return x->n_known > 0 ? x->n_known : s->group_known[x->group] ? s->conf.n_system : 0;
}

void bn_session_answered(struct bn_sessions *s, struct bn_session *x, const uint32_t *ids,
                         uint32_t n)
{
    uint32_t at = x->n;

    append(x, n);
    memcpy(x->ids + at, ids, n * sizeof(ids[0]));
    x->n_known = at = x->n;
    s->group_known[x->group] = true;
    append(x, s->conf.n_tool);
    bn_draw_ids(&s->conf.vocab, BN_STREAM_TOOL, (uint64_t)x->number << 32 | x->turn, x->ids + at,
                s->conf.n_tool);
    x->turn++;
}

static void add_conf(const struct bn_sessions_conf *c, struct ps_buf *out)
{
    ps_buf_add_u64(out, magic);
    ps_buf_add_u64(out, c->vocab.seed);
    ps_buf_add_u32(out, c->vocab.first);
    ps_buf_add_u32(out, c->vocab.n);
    ps_buf_add_u32(out, c->n);
    ps_buf_add_u32(out, c->n_groups);
    ps_buf_add_u32(out, c->n_system);
    ps_buf_add_u32(out, c->n_first);
    ps_buf_add_u32(out, c->n_tool);
}

void bn_sessions_write(const struct bn_sessions *s, struct ps_buf *out)
{
    size_t start = out->len;

    add_conf(&s->conf, out);
    for (uint32_t i = 0; i < s->conf.n; i++) {
        const struct bn_session *x = &s->v[i];

        ps_buf_add_u32(out, x->turn);
        ps_buf_add_u32(out, x->n_known);
        ps_buf_add_u32(out, x->n);
        for (uint32_t k = 0; k < x->n; k++)
            ps_buf_add_u32(out, x->ids[k]);
    }
    ps_buf_add_u64(out, ps_hash64(out->data + start, out->len - start, magic));
}

static uint32_t get_u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;

    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

/* One session at *p; false when it does not fit into the file or breaks its own counts. */
static bool read_session(struct bn_sessions *s, struct bn_session *x, const char **p, size_t *left)
{
    uint32_t turn, n_known, n;

    if (*left < 12)
        return false;
    turn = get_u32(*p);
    n_known = get_u32(*p + 4);
    n = get_u32(*p + 8);
    *p += 12;
    *left -= 12;
    if (n == 0 || n > BN_HISTORY_MAX / 2 || n_known >= n || (n_known > 0) != (turn > 0) ||
        *left / 4 < n)
        return false;
    x->n = 0;
    append(x, n);
    for (uint32_t k = 0; k < n; k++)
        x->ids[k] = get_u32(*p + 4 * (size_t)k);
    *p += 4 * (size_t)n;
    *left -= 4 * (size_t)n;
    x->turn = turn;
    x->n_known = n_known;
    s->group_known[x->group] |= n_known > 0;
    return true;
}

int bn_sessions_read(struct bn_sessions *s, const char *data, size_t len, struct ps_buf *err)
{
    struct ps_buf want = PS_BUF_INIT, sum = PS_BUF_INIT;
    const char *what = NULL, *p = data;
    size_t left = len;

    add_conf(&s->conf, &want);
    if (len < want.len + 8 || memcmp(data, want.data, 8) != 0) {
        what = "no file of sessions";
    } else if (memcmp(data, want.data, want.len) != 0) {
        what = "made with other options";
    } else {
        ps_buf_add_u64(&sum, ps_hash64(data, len - 8, magic));
        if (memcmp(data + len - 8, sum.data, 8) != 0)
            what = "damaged";
        p += want.len;
        left -= want.len + 8;
    }
    for (uint32_t i = 0; what == NULL && i < s->conf.n; i++) {
        if (!read_session(s, &s->v[i], &p, &left))
            what = "damaged";
    }
    if (what == NULL && left != 0)
        what = "damaged";
    if (what != NULL)
        ps_buf_add_str(err, what);
    ps_buf_fini(&want);
    ps_buf_fini(&sum);
    return what == NULL ? BN_SESSIONS_OK : BN_SESSIONS_E_OTHER;
}
