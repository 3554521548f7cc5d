#include "router/answer/stream.h"

#include <string.h>

#include "common/text/utf8.h"

const struct rt_stop *rt_stops_compile(struct ps_arena *a, const struct rt_str *strs, uint32_t n)
{
    struct rt_stop *stops = ps_arena_calloc(a, n + 1, sizeof(stops[0]));

    for (uint32_t i = 0; i < n; i++) {
        struct rt_stop *s = &stops[i];
        uint16_t k = 0;

        PS_ASSERT(strs[i].len > 0 && strs[i].len <= UINT16_MAX);
        s->len = (uint16_t)strs[i].len;
        s->s = ps_arena_memdup(a, strs[i].s, strs[i].len); /* may hold NULs */
        s->back = ps_arena_calloc(a, s->len, sizeof(s->back[0]));
        for (uint16_t j = 1; j < s->len; j++) {
            while (k > 0 && s->s[j] != s->s[k])
                k = s->back[k - 1];
            if (s->s[j] == s->s[k])
                k++;
            s->back[j] = k;
        }
    }
    return stops;
}

void rt_stream_init(struct rt_stream *s, const struct rt_stream_conf *conf, struct ps_arena *a)
{
    *s = (struct rt_stream){.conf = conf, .matched = -1};
    ps_detok_init(&s->detok, conf->tok, conf->skip_special);
    s->state = ps_arena_calloc(a, conf->n_stops + 1, sizeof(s->state[0]));
}

void rt_stream_fini(struct rt_stream *s)
{
    ps_buf_fini(&s->text);
    ps_buf_fini(&s->held);
    ps_buf_fini(&s->piece);
    ps_free(s->ids);
    ps_free(s->logprobs);
    ps_free(s->offsets);
    s->ids = s->offsets = NULL;
    s->logprobs = NULL;
}

static void keep(struct rt_stream *s, uint32_t id, const struct pb_logprob *lp)
{
    const struct rt_stream_conf *c = s->conf;

    if (!c->keep_ids && !c->keep_logprobs)
        return;
    if (s->n_new == s->cap_new) {
        s->cap_new = s->cap_new != 0 ? 2 * s->cap_new : 16;
        s->ids = ps_realloc(s->ids, s->cap_new * sizeof(s->ids[0]));
        s->offsets = ps_realloc(s->offsets, s->cap_new * sizeof(s->offsets[0]));
        if (c->keep_logprobs)
            s->logprobs = ps_realloc(s->logprobs, s->cap_new * sizeof(s->logprobs[0]));
    }
    s->ids[s->n_new] = id;
    s->offsets[s->n_new] = s->n_cp;
    if (c->keep_logprobs)
        s->logprobs[s->n_new] = lp != NULL ? *lp : (struct pb_logprob){0};
    s->n_new++;
}

static bool ends_answer(const struct rt_stream_conf *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->n_ends; i++) {
        if (c->ends[i] == id)
            return true;
    }
    return false;
}

/* One byte through all automata: the longest stop string that ends here, -1 when none does. */
static int32_t step(struct rt_stream *s, char byte)
{
    int32_t best = -1;

    for (uint32_t i = 0; i < s->conf->n_stops; i++) {
        const struct rt_stop *stop = &s->conf->stops[i];
        uint16_t k = s->state[i];

        while (k > 0 && stop->s[k] != byte)
            k = stop->back[k - 1];
        if (stop->s[k] == byte)
            k++;
        s->state[i] = k;
        if (k == stop->len && (best < 0 || stop->len > s->conf->stops[best].len))
            best = (int32_t)i;
    }
    return best;
}

/* Appends the piece; true when a stop string is complete. */
static bool feed(struct rt_stream *s)
{
    size_t start = s->held.len, n_hold = 0;
    int32_t hit = -1;
    size_t end;

    ps_buf_add(&s->held, s->piece.data, s->piece.len);
    for (end = start; end < s->held.len && hit < 0; end++)
        hit = step(s, s->held.data[end]);
    if (hit >= 0) {
        if (!s->conf->include_stop)
            end -= s->conf->stops[hit].len;
        ps_buf_add(&s->text, s->held.data, end);
        ps_buf_clear(&s->held);
        s->matched = hit;
        return true;
    }
    for (uint32_t i = 0; i < s->conf->n_stops && !s->conf->include_stop; i++)
        n_hold = s->state[i] > n_hold ? s->state[i] : n_hold;
    PS_ASSERT(n_hold <= s->held.len);
    ps_buf_add(&s->text, s->held.data, s->held.len - n_hold);
    ps_buf_consume(&s->held, s->held.len - n_hold);
    return false;
}

bool rt_stream_push(struct rt_stream *s, uint32_t id, const struct pb_logprob *lp)
{
    const struct rt_stream_conf *c = s->conf;

    PS_ASSERT(s->matched < 0);
    keep(s, id, lp);
    s->n_tokens++;
    if (!c->include_stop && ends_answer(c, id))
        return false;
    ps_buf_clear(&s->piece);
    ps_detok_push(&s->detok, id, &s->piece);
    if (s->piece.len == 0)
        return false;
    s->n_cp += (uint32_t)ps_utf8_n_cp(s->piece.data, s->piece.len);
    if (c->n_stops == 0 || s->n_tokens <= c->min_tokens) {
        ps_buf_add(&s->text, s->piece.data, s->piece.len);
        return false;
    }
    return feed(s);
}

void rt_stream_end(struct rt_stream *s)
{
    if (s->matched >= 0)
        return;
    ps_buf_add(&s->text, s->held.data, s->held.len);
    ps_buf_clear(&s->held);
    ps_detok_flush(&s->detok, &s->text);
}

void rt_stream_take(struct rt_stream *s)
{
    ps_buf_clear(&s->text);
    s->n_new = 0;
}
