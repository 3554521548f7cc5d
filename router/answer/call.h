#pragma once

/*
 * One HTTP request's answer: prompts times choices, their generations, usage, and how it ends.
 *
 * Belongs to one loop. Generations only append to their choice and mark the call; rt_calls_flush, once
 * a turn after them, writes for every marked call: all events of the turn in one write, the last ones
 * together with the end of the body. Preparation (JSON, checks, template, tokens) touches nothing but
 * the call itself, so that a long one runs in the text pool.
 *
 * Life of a call. The only writer is call_goto().
 *
 *   TEXT -> RUN -> DONE -> freed
 *     |             ^
 *     +-------------+     refused, or the client went away
 *
 * Invariants
 *   C1 nothing is written before the first token, the end, or the header flush time, so that a failure
 *      until then has its own status.
 *   C2 a stream ends with a finish reason for every choice, or with an error: never without both.
 *   C3 usage counts the tokens up to and including the one that ended each choice; the metrics are
 *      counted from the same numbers.
 */

#include "common/arena.h"
#include "common/json/json.h"
#include "router/answer/stream.h"
#include "router/ask.h"
#include "router/gen.h"
#include "router/request/params.h"
#include "router/request/text.h"

struct rt_call;
struct rt_api;

enum rt_call_state { RT_CALL_TEXT, RT_CALL_RUN, RT_CALL_DONE };

struct rt_prompt {
    struct ps_tok_ids ids;
    const char *text; /* arena; with echo: what the answer repeats */
    size_t text_len;
    uint32_t n_tokens, n_cached, max_out;
    /* [n_scores], entry 0 unused; NULL when not asked for or not there */
    struct pb_logprob *scores;
    uint32_t n_scores;
};

enum rt_why { RT_WHY_NONE, RT_WHY_EOS, RT_WHY_STOP_ID, RT_WHY_STOP_STRING, RT_WHY_LENGTH };

struct rt_choice {
    struct rt_call *call;
    struct rt_prompt *prompt;
    struct rt_gen *gen; /* NULL: not started, or over */
    struct rt_stream st;
    uint32_t index;
    enum rt_why why; /* NONE: still running */
    uint32_t matched_id;
    uint32_t n_shown;           /* tokens that usage counts */
    bool dirty, opened, closed; /* opened: its first chunk was written; closed: its finish chunk */
    uint64_t first_us, last_us, queued_us;
    struct rt_choice *next_dirty;
};

struct rt_call {
    struct rt_api *api;
    struct rt_ask *ask; /* NULL: the client is gone */
    struct rt_text_job job;
    struct rt_call *prev, *next; /* all of the loop */
    struct rt_call *next_dirty;
    bool dirty;
    enum rt_call_state state;
    struct ps_arena arena;

    /* Preparation. */
    const char *body;
    size_t body_len;
    char *own_body; /* a copy when the pool works on it */
    struct ps_json_doc *doc;
    struct rt_params p;
    bool failed;
    struct rt_fail fail;

    /* The answer. */
    const char *id, *model; /* arena */
    const char *chunk_head; /* arena: what every event of the stream begins with */
    uint64_t created_s;
    struct rt_stream_conf stream_conf;
    struct rt_prompt *prompts; /* [n_prompts] */
    struct rt_choice *choices; /* [n_choices], prompt-major */
    uint32_t n_prompts, n_choices, n_open;
    struct rt_choice *dirty_choices, **dirty_tail;
    bool began;     /* the head is out */
    bool waits;     /* much is unsent: until it was taken nothing more is written */
    bool hold;      /* written only when all choices are over (needs the prompt's scores) */
    bool ids_shown; /* the prompt's ids are in a chunk already */
    uint32_t n_running_total; /* completion tokens last shown in a chunk */
    uint64_t affinity, start_us, last_write_us, keepalive_us; /* keepalive_us 0: off */
    int32_t priority;
};

struct rt_usage {
    uint64_t n_prompt, n_completion, n_cached;
};

/* Takes over the ask, which is answered sooner or later. body lives until the ask is answered or gone. */
void rt_call_start(struct rt_ask *a, enum rt_dialect d, const char *body, size_t len);
/* The client went away: its generations are cancelled. */
void rt_call_gone(struct rt_call *c);
/* A slow client has caught up: what was held back is written. */
void rt_call_drained(struct rt_call *c);

void rt_call_usage(const struct rt_call *c, struct rt_usage *out);
const char *rt_call_finish_reason(const struct rt_choice *ch);
/* The stop reason of a finished choice: null, an id or a string, as JSON. */
void rt_call_add_stop_reason(struct ps_buf *out, const struct rt_choice *ch);

/* Of a loop's calls. */
void rt_calls_flush(struct rt_api *api); /* once a turn */
void rt_calls_care(struct rt_api *api);  /* timer: late heads, keep-alive */
