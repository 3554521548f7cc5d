#include "router/write.h"

#include <inttypes.h>
#include <string.h>

#include "common/text/utf8.h"

/* The tokens of one logprobs object: the prompt's (with echo), then the new ones of the stream. */
struct item {
    uint32_t id, offset;
    const struct pb_logprob *lp; /* NULL: nothing could predict it */
};

struct items {
    struct item *v;
    uint32_t n;
};

static bool wants_echo(const struct rt_choice *ch)
{
    return ch->call->p.echo && !ch->opened;
}

static void collect_prompt(const struct rt_choice *ch, struct items *it)
{
    const struct rt_prompt *p = ch->prompt;
    struct ps_buf text = PS_BUF_INIT;
    struct ps_detok d;

    ps_detok_init(&d, ch->call->stream_conf.tok, ch->call->stream_conf.skip_special);
    for (uint32_t i = 0; i < p->n_tokens; i++) {
        it->v[it->n].id = p->ids.ids[i];
        it->v[it->n].offset = text.len > 0 ? (uint32_t)ps_utf8_n_cp(text.data, text.len) : 0;
        it->v[it->n].lp = i > 0 && i < p->n_scores ? &p->scores[i] : NULL;
        if (i > 0 && text.len > 0) { /* count each byte once: the offset so far is carried on */
            it->v[it->n].offset += it->v[it->n - 1].offset;
            ps_buf_clear(&text);
        }
        it->n++;
        ps_detok_push(&d, p->ids.ids[i], &text);
    }
    ps_buf_fini(&text);
}
