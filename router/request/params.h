#pragma once

/*
 * What a client asked for, common to the chat and completions dialects: read, checked, and turned into
 * the plain numbers a generation starts with.
 *
 * Three steps: rt_params_init, rt_params_read (one field at a time, in document order), then
 * rt_params_settle (what excludes each other; request over generation_config over the API's default).
 * Pure functions over the body and the model's facts: any thread. Strings and JSON values are views
 * into the request's document.
 *
 * Invariant: after settle every number is in the range pb_submit_check demands.
 */

#include "common/buf.h"
#include "proto/submit.h"
#include "router/request/check.h"

struct rt_conf;
struct rt_model;

enum rt_dialect { RT_CHAT, RT_COMPLETION };

enum { RT_MAX_STOPS = 64, RT_MAX_STOP_BYTES = 1024, RT_MAX_PROMPTS = 2048 };

struct rt_params {
    enum rt_dialect dialect;
    const struct rt_model *model;
    const struct rt_conf *conf;

    /* As read; see check.h for what "not given" is. */
    struct rt_str model_name, cache_salt, extra_key, request_id, rid, session_id, prompt_cache_key,
        user, meta_user, suffix;
    double temperature, top_p, min_p, rep_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, n, max_tokens, max_completion_tokens, min_tokens, seed, top_logprobs, n_logprobs,
        prompt_logprobs, truncate_prompt, priority, sse_ping_s, best_of;
    int8_t stream, logprobs, ignore_eos, include_stop, skip_special, add_generation_prompt,
        continue_final, add_special, echo, return_token_ids, tokens_as_ids, include_usage,
        continuous_usage, truncate_right, enable_thinking, thinking;
    bool has_stream_options;
    struct rt_str stops[RT_MAX_STOPS];
    uint32_t n_stops;
    uint32_t *stop_ids, *bias_ids; /* owned */
    float *bias;
    uint32_t n_stop_ids, n_bias;
    const struct ps_json *messages, *prompt, *template_kwargs, *documents;
    const struct ps_json *effort; /* reasoning_effort as given: string or number */

    /* Settled. */
    struct pb_sampling samp; /* of choice 0 */
    int32_t n_top;           /* alternatives to show; -1: no log-probabilities */
    int32_t n_prompt_top;    /* the same for prompt_logprobs */
    bool has_max;            /* the client set a limit, in max_param */
    const char *max_param;
    uint32_t max_out;        /* PB_NO_LIMIT: what the context leaves */
    bool score_only;         /* max_tokens 0 with echo */
    const char *shown_model; /* the name answers carry */
};

void rt_params_init(struct rt_params *p, enum rt_dialect d, const struct rt_model *m,
                    const struct rt_conf *conf);
void rt_params_fini(struct rt_params *p);
/* Counts ignored fields in *out_ignored. False: *f is filled. */
PS_MUST bool rt_params_read(struct rt_params *p, const struct ps_json *body, uint32_t *out_ignored,
                            struct rt_fail *f);
PS_MUST bool rt_params_settle(struct rt_params *p, struct rt_fail *f);

/* Seed of choice i: the seed itself for the first, a hash of (seed, i) for the others. */
uint64_t rt_params_seed(const struct rt_params *p, uint32_t choice);
/* Object of template variables from chat_template_kwargs and the reasoning switches; "" when none. */
void rt_params_kwargs(const struct rt_params *p, struct ps_buf *out);

/*
 * Name resolution: absent or "default", exact, alias pattern, another case, last path segment. *out_shown
 * gets the name for answers: the served one, or the client's own when an alias matched (a view). False: unknown.
 */
bool rt_model_resolve(const struct rt_model *m, struct rt_str name, const char **out_shown);
/* Ids a request may name: the model's rows, which may be more than the tokenizer's (padding). */
uint32_t rt_model_n_vocab(const struct rt_model *m);
