#pragma once

/*
 * One choice's tokens on their way to text: detokenised, watched for stop strings, held back, kept.
 *
 * Belongs to the loop's thread. Text leaves `text` only when it is certain: no part of a character, and
 * nothing that may still become a stop string (the longest suffix that is a proper prefix of one is
 * held). Which stop string matches does not depend on how the text was cut into tokens: the one that
 * ends first, the longest of those that end together.
 *
 * Invariants
 *   S1 the concatenation of what was taken equals the answer; a stop string is in it only when asked for.
 *   S2 ids and logprobs hold exactly the tokens since the last take.
 */

#include "common/arena.h"
#include "common/buf.h"
#include "common/text/tokenizer.h"
#include "proto/submit.h"
#include "router/request/check.h"

struct rt_stop {
    const char *s;
    uint16_t len;
    uint16_t *back; /* [len]: the longest border of s[0..i], as in Knuth-Morris-Pratt */
};

struct rt_stream_conf { /* shared by the choices of a request */
    const struct ps_tok *tok;
    const struct rt_stop *stops;
    uint32_t n_stops;
    const uint32_t *ends; /* ids that end the answer: their text is not part of it */
    uint32_t n_ends;
    uint32_t min_tokens; /* stop strings count after this many tokens only */
    bool include_stop;   /* the stop string or token belongs to the output */
    bool skip_special;
    bool keep_ids, keep_logprobs;
};

struct rt_stream {
    const struct rt_stream_conf *conf;
    struct ps_detok detok;
    uint16_t *state;     /* [n_stops]: bytes of each stop string that the text ends with */
    struct ps_buf text;  /* certain, not taken */
    struct ps_buf held;  /* not certain */
    struct ps_buf piece; /* scratch */
    uint32_t n_tokens;   /* all, the one that completed a stop string included */
    uint32_t n_new, cap_new;
    uint32_t *ids;               /* [n_new] with keep_ids or keep_logprobs */
    struct pb_logprob *logprobs; /* [n_new] with keep_logprobs */
    uint32_t *offsets;           /* [n_new]: code points of the answer before each token */
    uint32_t n_cp;               /* code points so far */
    int32_t matched;             /* stop string, -1 none */
};

/* Copies and compiles the strings into the arena. */
const struct rt_stop *rt_stops_compile(struct ps_arena *a, const struct rt_str *strs, uint32_t n);

void rt_stream_init(struct rt_stream *s, const struct rt_stream_conf *conf, struct ps_arena *a);
void rt_stream_fini(struct rt_stream *s);
/* lp may be NULL. True: a stop string is complete, no further push. */
bool rt_stream_push(struct rt_stream *s, uint32_t id, const struct pb_logprob *lp);
void rt_stream_end(struct rt_stream *s);  /* no more tokens: what was held becomes text */
void rt_stream_take(struct rt_stream *s); /* text and tokens were written: forgets them */
