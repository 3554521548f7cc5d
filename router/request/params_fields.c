/*
 * The tables of request fields: what a dialect knows is what stands here.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "router/conf_def.h"
#include "router/request/params.h"
#include "router/request/params_fields.h"
#include "router/router.h"

#define P(c) ((struct rt_params *)(c)->dst)
#define ROW(n, k, m) \
    { \
        .name = (n), .kind = (k), .offset = offsetof(struct rt_params, m) \
    }
#define RANGE(n, k, m, lo, hi) \
    { \
        .name = (n), .kind = (k), .offset = offsetof(struct rt_params, m), .min = (lo), \
        .max = (hi) \
    }
#define CUSTOM(n, f) \
    { \
        .name = (n), .kind = RT_F_CUSTOM, .fn = (f) \
    }
#define IGNORE(n) \
    { \
        .name = (n), .kind = RT_F_IGNORE \
    }
#define REFUSE(n) \
    { \
        .name = (n), .kind = RT_F_REFUSE \
    }
#define REFUSE_TRUE(n) \
    { \
        .name = (n), .kind = RT_F_REFUSE_TRUE \
    }
#define REFUSE_FILLED(n) \
    { \
        .name = (n), .kind = RT_F_REFUSE_FILLED \
    }
#define OFF(n, a, b) \
    { \
        .name = (n), .kind = RT_F_OFF, .min = (a), .max = (b) \
    }

enum { MAX_KWARGS_BYTES = 64 * 1024, MAX_SALT_BYTES = 128 };

static bool str_is(const struct ps_json *v, const char *want)
{
    const char *s;
    size_t len;

    if (ps_json_type(v) != PS_JSON_STR)
        return false;
    s = ps_json_str(v, &len);
    return len == strlen(want) && memcmp(s, want, len) == 0;
}

static bool add_stop(struct rt_check *c, const struct ps_json *v)
{
    struct rt_params *p = P(c);
    struct rt_str s = {0};

    if (!rt_check_str(c, v, &s))
        return false;
    if (s.len == 0 || s.len > RT_MAX_STOP_BYTES)
        return rt_check_bad(c, RT_E6_VALUE, "Each 'stop' string must have 1 to %d bytes",
                            RT_MAX_STOP_BYTES);
    p->stops[p->n_stops++] = s;
    return true;
}

static bool read_stop(struct rt_check *c, const struct ps_json *v)
{
    P(c)->n_stops = 0;
    if (ps_json_type(v) == PS_JSON_STR)
        return add_stop(c, v);
    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "a string or an array of strings");
    if (ps_json_n(v) > RT_MAX_STOPS)
        return rt_check_bad(c, RT_E6_VALUE, "'stop' may hold at most %d strings", RT_MAX_STOPS);
    for (size_t i = 0; i < ps_json_n(v); i++) {
        if (!add_stop(c, ps_json_at(v, i)))
            return false;
    }
    return true;
}

static bool read_stop_ids(struct rt_check *c, const struct ps_json *v)
{
    struct rt_params *p = P(c);

    return rt_check_ids(c, v, rt_model_n_vocab(p->model), PB_MAX_STOP_IDS, &p->stop_ids,
                        &p->n_stop_ids);
}

static bool read_bias_id(struct rt_check *c, const char *key, uint32_t *out)
{
    uint32_t n_vocab = rt_model_n_vocab(P(c)->model);
    unsigned long id;
    char *end;

    id = strtoul(key, &end, 10);
    if (key[0] < '0' || key[0] > '9' || *end != '\0' || strlen(key) > 10)
        return rt_check_bad(c, RT_E6_VALUE, "'logit_bias' keys must be token ids, got '%.100s'",
                            key);
    if (id >= n_vocab)
        return rt_check_bad(c, RT_E6_VALUE,
                            "'logit_bias' holds token id %lu, which is out of vocabulary (0 to %u)",
                            id, n_vocab - 1);
    *out = (uint32_t)id;
    return true;
}

static bool read_bias(struct rt_check *c, const struct ps_json *v)
{
    struct rt_params *p = P(c);
    const struct ps_json *item;
    const char *key;
    void *it = NULL;
    double d;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object of token id to number");
    if (ps_json_n(v) > PB_MAX_BIAS)
        return rt_check_bad(c, RT_E6_VALUE, "'logit_bias' may hold at most %d entries",
                            PB_MAX_BIAS);
    p->bias_ids = ps_calloc(ps_json_n(v) + 1, sizeof(p->bias_ids[0]));
    p->bias = ps_calloc(ps_json_n(v) + 1, sizeof(p->bias[0]));
    while ((item = ps_json_next(v, &it, &key)) != NULL) {
        if (!read_bias_id(c, key, &p->bias_ids[p->n_bias]) || !rt_check_float(c, item, 0, 0, &d))
            return false;
        p->bias[p->n_bias++] = (float)(d < -100 ? -100 : d > 100 ? 100 : d);
    }
    return true;
}

static bool read_stream_options(struct rt_check *c, const struct ps_json *v)
{
    static const struct rt_field rows[] = {
        ROW("include_usage", RT_F_BOOL, include_usage),
        ROW("continuous_usage_stats", RT_F_BOOL, continuous_usage),
        IGNORE("include_obfuscation"),
    };
    static const struct rt_fields table = {rows, PS_ARRAY_LEN(rows)};
    struct rt_check in = *c;
    bool ok;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object");
    P(c)->has_stream_options = true;
    in.prefix = "stream_options.";
    ok = rt_check_object(&in, v, &table, 1);
    c->n_ignored = in.n_ignored;
    return ok;
}

static bool read_response_format(struct rt_check *c, const struct ps_json *v)
{
    const struct ps_json *type;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object");
    type = ps_json_get(v, "type");
    if (type != NULL && str_is(type, "text"))
        return true;
    return rt_check_bad(c, RT_E8_UNSUPPORTED_VALUE,
                        "'response_format' other than {\"type\":\"text\"} is not supported by this "
                        "server");
}

static bool read_tool_choice(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) == PS_JSON_OBJ || str_is(v, "required"))
        return rt_check_bad(c, RT_E6_VALUE,
                            "'tool_choice' asks for a tool, but no 'tools' are given");
    if (ps_json_type(v) != PS_JSON_STR)
        return rt_check_bad_type(c, "a string or an object");
    if (str_is(v, "auto") || str_is(v, "none"))
        return true;
    return rt_check_bad(c, RT_E6_VALUE, "'tool_choice' must be 'none' or 'auto' here");
}

static bool read_modalities(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "an array");
    for (size_t i = 0; i < ps_json_n(v); i++) {
        if (!str_is(ps_json_at(v, i), "text"))
            return rt_check_bad(c, RT_E8_UNSUPPORTED_VALUE,
                                "'modalities' other than text are not "
                                "supported by this model");
    }
    return true;
}

static bool read_kwargs(struct rt_check *c, const struct ps_json *v)
{
    struct ps_buf text = PS_BUF_INIT;
    bool big;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object");
    ps_json_write(&text, v, false);
    big = text.len > MAX_KWARGS_BYTES;
    ps_buf_fini(&text);
    if (big)
        return rt_check_bad(c, RT_E6_VALUE, "'chat_template_kwargs' is larger than %d bytes",
                            MAX_KWARGS_BYTES);
    P(c)->template_kwargs = v;
    return true;
}

static bool read_effort(struct rt_check *c, const struct ps_json *v)
{
    double d = 0;

    if (ps_json_type(v) != PS_JSON_STR && !rt_check_float(c, v, 0, 100, &d))
        return false;
    P(c)->effort = v;
    return true;
}

static bool read_reasoning(struct rt_check *c, const struct ps_json *v)
{
    static const struct rt_field rows[] = {
        CUSTOM("effort", read_effort),
        ROW("enabled", RT_F_BOOL, enable_thinking),
    };
    static const struct rt_fields table = {rows, PS_ARRAY_LEN(rows)};
    struct rt_check in = *c;
    bool ok;

    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object");
    in.prefix = "reasoning.";
    ok = rt_check_object(&in, v, &table, 1);
    c->n_ignored = in.n_ignored;
    return ok;
}

static bool read_thinking(struct rt_check *c, const struct ps_json *v)
{
    const struct ps_json *type;

    if (ps_json_type(v) == PS_JSON_BOOL)
        return rt_check_bool(c, v, &P(c)->thinking);
    if (ps_json_type(v) != PS_JSON_OBJ)
        return rt_check_bad_type(c, "an object");
    type = ps_json_get(v, "type");
    if (type == NULL || (!str_is(type, "enabled") && !str_is(type, "disabled")))
        return rt_check_bad(c, RT_E6_VALUE, "'thinking.type' must be 'enabled' or 'disabled'");
    P(c)->thinking = str_is(type, "enabled") ? 1 : 0;
    return true;
}

/* A salt ends up in hash input; the characters are those other servers accept. */
static bool check_salt(struct rt_check *c, const struct ps_json *v, struct rt_str *out)
{
    if (!rt_check_str(c, v, out))
        return false;
    if (out->len == 0 || out->len > MAX_SALT_BYTES || memchr(out->s, '\0', out->len) != NULL ||
        strpbrk(out->s, "@/\\") != NULL)
        return rt_check_bad(c, RT_E6_VALUE,
                            "'%s' must have 1 to %d characters, none of them '@', '/', '\\' or NUL",
                            c->name, MAX_SALT_BYTES);
    return true;
}

static bool read_cache_salt(struct rt_check *c, const struct ps_json *v)
{
    return check_salt(c, v, &P(c)->cache_salt);
}

static bool read_extra_key(struct rt_check *c, const struct ps_json *v)
{
    return check_salt(c, v, &P(c)->extra_key);
}

static bool read_metadata(struct rt_check *c, const struct ps_json *v)
{
    const struct ps_json *id;

    c->n_ignored++;
    if (ps_json_type(v) == PS_JSON_OBJ && (id = ps_json_get(v, "user_id")) != NULL &&
        ps_json_type(id) == PS_JSON_STR)
        P(c)->meta_user.s = ps_json_str(id, &P(c)->meta_user.len);
    return true;
}

static bool read_ping(struct rt_check *c, const struct ps_json *v)
{
    int64_t s;

    if (!rt_check_int(c, v, -1, 86400, &s))
        return false;
    if (s == 0)
        return rt_check_bad(c, RT_E6_VALUE, "'sse_ping_interval' must be -1 or at least 1");
    P(c)->sse_ping_s = s;
    return true;
}

static bool read_truncate(struct rt_check *c, const struct ps_json *v)
{
    int64_t n;

    if (!rt_check_int(c, v, -1, UINT32_MAX, &n))
        return false;
    if (n == 0)
        return rt_check_bad(c, RT_E6_VALUE, "'truncate_prompt_tokens' must be -1 or at least 1");
    P(c)->truncate_prompt = n;
    return true;
}

static bool read_side(struct rt_check *c, const struct ps_json *v)
{
    if (!str_is(v, "left") && !str_is(v, "right"))
        return rt_check_bad(c, RT_E6_VALUE, "'truncation_side' must be 'left' or 'right'");
    P(c)->truncate_right = str_is(v, "right") ? 1 : 0;
    return true;
}

static bool read_rep_penalty(struct rt_check *c, const struct ps_json *v)
{
    double d;

    if (!rt_check_float(c, v, 0, 0, &d))
        return false;
    if (d <= 0)
        return rt_check_bad(c, RT_E6_VALUE, "'%s' must be greater than 0", c->name);
    P(c)->rep_penalty = d;
    return true;
}

static bool read_max(struct rt_check *c, const struct ps_json *v)
{
    struct rt_params *p = P(c);
    bool newer = strcmp(c->name, "max_completion_tokens") == 0;
    int64_t n;

    if (!rt_check_int(c, v, 0, 0, &n))
        return false;
    /* -1 means "not set"; 0 has a meaning with echo only, which is known when all is read. */
    if (n < -1 || (n == 0 && (newer || p->dialect == RT_CHAT)))
        return rt_check_bad(c, RT_E6_VALUE, "'%s' must be at least 1", c->name);
    if (n != -1)
        *(newer ? &p->max_completion_tokens : &p->max_tokens) = n;
    return true;
}

static bool keep_messages(struct rt_check *c, const struct ps_json *v)
{
    /* A prompt may have them beside it; they then have no effect. */
    if (ps_json_type(v) != PS_JSON_ARR && P(c)->dialect == RT_CHAT)
        return rt_check_bad_type(c, "an array");
    P(c)->messages = v;
    return true;
}

static bool keep_prompt(struct rt_check *c, const struct ps_json *v)
{
    P(c)->prompt = v;
    return true;
}

static bool keep_documents(struct rt_check *c, const struct ps_json *v)
{
    if (ps_json_type(v) != PS_JSON_ARR)
        return rt_check_bad_type(c, "an array");
    if (ps_json_n(v) > 0)
        P(c)->documents = v;
    return true;
}

static const struct rt_field common_rows[] = {
    ROW("model", RT_F_STR, model_name),
    RANGE("temperature", RT_F_FLOAT, temperature, 0, 2),
    RANGE("top_p", RT_F_FLOAT, top_p, 0, 1),
    RANGE("n", RT_F_INT, n, 1, 128),
    CUSTOM("max_tokens", read_max),
    CUSTOM("stop", read_stop),
    ROW("stream", RT_F_BOOL, stream),
    CUSTOM("stream_options", read_stream_options),
    RANGE("presence_penalty", RT_F_FLOAT, presence_penalty, -2, 2),
    RANGE("frequency_penalty", RT_F_FLOAT, frequency_penalty, -2, 2),
    CUSTOM("logit_bias", read_bias),
    ROW("seed", RT_F_INT, seed),
    RANGE("top_k", RT_F_INT, top_k, -1, INT32_MAX),
    RANGE("min_p", RT_F_FLOAT, min_p, 0, 1),
    CUSTOM("repetition_penalty", read_rep_penalty),
    CUSTOM("repeat_penalty", read_rep_penalty),
    RANGE("min_tokens", RT_F_INT, min_tokens, 0, UINT32_MAX),
    ROW("ignore_eos", RT_F_BOOL, ignore_eos),
    CUSTOM("stop_token_ids", read_stop_ids),
    ROW("include_stop_str_in_output", RT_F_BOOL, include_stop),
    ROW("no_stop_trim", RT_F_BOOL, include_stop),
    ROW("skip_special_tokens", RT_F_BOOL, skip_special),
    IGNORE("spaces_between_special_tokens"),
    ROW("add_special_tokens", RT_F_BOOL, add_special),
    RANGE("prompt_logprobs", RT_F_INT, prompt_logprobs, 0, PB_MAX_TOP),
    ROW("return_token_ids", RT_F_BOOL, return_token_ids),
    ROW("return_tokens_as_token_ids", RT_F_BOOL, tokens_as_ids),
    CUSTOM("truncate_prompt_tokens", read_truncate),
    CUSTOM("truncation_side", read_side),
    RANGE("priority", RT_F_INT, priority, INT32_MIN, INT32_MAX),
    CUSTOM("cache_salt", read_cache_salt),
    CUSTOM("extra_key", read_extra_key),
    ROW("request_id", RT_F_STR, request_id),
    ROW("rid", RT_F_STR, rid),
    ROW("session_id", RT_F_STR, session_id),
    ROW("prompt_cache_key", RT_F_STR, prompt_cache_key),
    ROW("user", RT_F_STR, user),
    CUSTOM("metadata", read_metadata),
    CUSTOM("sse_ping_interval", read_ping),
    CUSTOM("response_format", read_response_format),
    REFUSE("structured_outputs"),
    REFUSE("guided_json"),
    REFUSE("guided_regex"),
    REFUSE("guided_choice"),
    REFUSE("guided_grammar"),
    IGNORE("guided_whitespace_pattern"),
    IGNORE("guided_decoding_backend"),
    REFUSE("regex"),
    REFUSE("ebnf"),
    REFUSE("json_schema"),
    REFUSE("grammar"),
    REFUSE("structural_tag"),
    REFUSE_FILLED("logprob_token_ids"),
    REFUSE_FILLED("allowed_token_ids"),
    REFUSE_FILLED("bad_words"),
    REFUSE_TRUE("use_beam_search"),
    IGNORE("length_penalty"),
    IGNORE("early_stopping"),
    REFUSE("lora_path"),
    REFUSE("adapter"),
    REFUSE("lora"),
    REFUSE("logits_processors"),
    REFUSE("custom_logit_processor"),
    REFUSE("custom_params"),
    REFUSE("mm_processor_kwargs"),
    REFUSE("media_io_kwargs"),
    REFUSE_TRUE("return_hidden_states"),
    REFUSE_TRUE("return_routed_experts"),
    OFF("n_predict", -1, -1),
    OFF("n_probs", 0, 0),
    IGNORE("cache_prompt"),
    OFF("id_slot", -1, -1),
    OFF("n_keep", 0, 0),
    REFUSE("samplers"),
    OFF("typical_p", 1, 1),
    OFF("mirostat", 0, 0),
    IGNORE("mirostat_tau"),
    IGNORE("mirostat_eta"),
    OFF("dry_multiplier", 0, 0),
    IGNORE("dry_base"),
    IGNORE("dry_allowed_length"),
    IGNORE("dry_penalty_last_n"),
    IGNORE("dry_sequence_breakers"),
    OFF("xtc_probability", 0, 0),
    IGNORE("xtc_threshold"),
    OFF("dynatemp_range", 0, 0),
    IGNORE("dynatemp_exponent"),
    OFF("top_n_sigma", -1, -1),
    OFF("repeat_last_n", 0, 0),
    OFF("min_keep", 0, 0),
    IGNORE("prediction"),
    IGNORE("store"),
    IGNORE("service_tier"),
    IGNORE("verbosity"),
    IGNORE("moderation"),
    IGNORE("safety_identifier"),
    IGNORE("prompt_cache_retention"),
    IGNORE("prompt_cache_options"),
    IGNORE("audio"),
    IGNORE("return_prompt_text"),
    IGNORE("include_reasoning"),
    IGNORE("separate_reasoning"),
    IGNORE("stream_reasoning"),
    IGNORE("reasoning_format"),
    IGNORE("session_params"),
    IGNORE("stream_interval"),
    IGNORE("return_progress"),
    IGNORE("timings_per_token"),
    IGNORE("kv_transfer_params"),
    IGNORE("ec_transfer_params"),
    IGNORE("bootstrap_host"),
    IGNORE("bootstrap_port"),
    IGNORE("bootstrap_room"),
    IGNORE("data_parallel_rank"),
    IGNORE("routed_dp_rank"),
    IGNORE("disagg_prefill_dp_rank"),
    IGNORE("vllm_xargs"),
    IGNORE("custom_labels"),
    IGNORE("task"),
    IGNORE("watermarking"),
    IGNORE("repetition_detection"),
    IGNORE("return_meta_info"),
    IGNORE("return_cached_tokens_details"),
};

static const struct rt_field chat_rows[] = {
    CUSTOM("messages", keep_messages),
    CUSTOM("max_completion_tokens", read_max),
    ROW("logprobs", RT_F_BOOL, logprobs),
    RANGE("top_logprobs", RT_F_INT, top_logprobs, 0, PB_MAX_TOP),
    REFUSE_FILLED("tools"),
    CUSTOM("tool_choice", read_tool_choice),
    IGNORE("parallel_tool_calls"),
    REFUSE_FILLED("functions"),
    REFUSE("function_call"),
    CUSTOM("reasoning_effort", read_effort),
    CUSTOM("modalities", read_modalities),
    REFUSE("web_search_options"),
    CUSTOM("chat_template_kwargs", read_kwargs),
    ROW("add_generation_prompt", RT_F_BOOL, add_generation_prompt),
    ROW("continue_final_message", RT_F_BOOL, continue_final),
    REFUSE_TRUE("echo"),
    REFUSE("chat_template"),
    CUSTOM("documents", keep_documents),
    CUSTOM("reasoning", read_reasoning),
    ROW("enable_thinking", RT_F_BOOL, enable_thinking),
    CUSTOM("thinking", read_thinking),
    REFUSE("thinking_token_budget"),
    OFF("best_of", 1, 1),
};

static const struct rt_field completion_rows[] = {
    CUSTOM("prompt", keep_prompt),
    ROW("echo", RT_F_BOOL, echo),
    RANGE("logprobs", RT_F_INT, n_logprobs, 0, PB_MAX_TOP),
    RANGE("best_of", RT_F_INT, best_of, 0, 20),
    ROW("suffix", RT_F_STR, suffix),
    REFUSE("prompt_embeds"),
    CUSTOM("messages", keep_messages),
    IGNORE("tools"),
    IGNORE("tool_choice"),
    IGNORE("reasoning_effort"),
    IGNORE("reasoning"),
};

static const struct rt_fields tables[2][2] = {
    [RT_CHAT] = {{chat_rows, PS_ARRAY_LEN(chat_rows)}, {common_rows, PS_ARRAY_LEN(common_rows)}},
    [RT_COMPLETION] = {{completion_rows, PS_ARRAY_LEN(completion_rows)},
                       {common_rows, PS_ARRAY_LEN(common_rows)}},
};

const struct rt_fields *rt_params_tables(enum rt_dialect d)
{
    return tables[d];
}
