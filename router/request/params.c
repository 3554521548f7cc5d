#include "router/request/params.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "common/hash.h"
#include "common/rng.h"
#include "router/conf_def.h"
#include "router/request/params_fields.h"
#include "router/router.h"

/* Temperatures below this are greedy; the worker gets an exact 0. */
#define GREEDY_BELOW 1e-5

void rt_params_init(struct rt_params *p, enum rt_dialect d, const struct rt_model *m,
                    const struct rt_conf *conf)
{
    *p = (struct rt_params){.dialect = d, .model = m, .conf = conf};
    p->temperature = p->top_p = p->min_p = p->rep_penalty = (double)NAN;
    p->presence_penalty = p->frequency_penalty = (double)NAN;
    p->top_k = p->n = p->max_tokens = p->max_completion_tokens = p->min_tokens = p->seed =
        p->top_logprobs = p->n_logprobs = p->prompt_logprobs = p->truncate_prompt = p->priority =
            p->sse_ping_s = p->best_of = RT_ABSENT;
    p->add_generation_prompt = p->continue_final = p->add_special = -1;
    p->enable_thinking = p->thinking = -1;
    p->skip_special = 1;
}

void rt_params_fini(struct rt_params *p)
{
    ps_free(p->stop_ids);
    ps_free(p->bias_ids);
    ps_free(p->bias);
    p->stop_ids = p->bias_ids = NULL;
    p->bias = NULL;
}

bool rt_params_read(struct rt_params *p, const struct ps_json *body, uint32_t *out_ignored,
                    struct rt_fail *f)
{
    struct rt_check c = {.dst = p, .fail = f, .prefix = "", .strict = p->conf->strict_params};
    bool ok = rt_check_object(&c, body, rt_params_tables(p->dialect), RT_PARAMS_N_TABLES);

    *out_ignored = c.n_ignored;
    return ok;
}

/* ---- the model's name ---- */

/* '*' stands for any run of bytes. Linear: only the last star is ever tried again. */
static bool glob(const char *pattern, const char *s, size_t len)
{
    const char *star = NULL, *end = s + len, *retry = s;

    while (s < end) {
        if (*pattern == '*') {
            star = pattern++;
            retry = s;
        } else if (*pattern == *s && *pattern != '\0') {
            pattern++;
            s++;
        } else if (star != NULL) {
            pattern = star + 1;
            s = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

static bool equal(const char *a, const char *b, size_t b_len, bool any_case)
{
    return strlen(a) == b_len &&
           (any_case ? strncasecmp(a, b, b_len) == 0 : memcmp(a, b, b_len) == 0);
}

static const char *last_segment(const char *s, size_t len)
{
    const char *slash = memrchr(s, '/', len);

    return slash != NULL ? slash + 1 : s;
}

bool rt_model_resolve(const struct rt_model *m, struct rt_str name, const char **out_shown)
{
    const char *tail;
    size_t tail_len;

    *out_shown = m->name;
    if (name.s == NULL || equal("default", name.s, name.len, false) ||
        equal(m->name, name.s, name.len, false))
        return true;
    if (name.len == 0 || memchr(name.s, '\0', name.len) != NULL)
        return false;
    for (uint32_t i = 0; i < m->n_aliases; i++) {
        if (glob(m->aliases[i], name.s, name.len)) {
            *out_shown = name.s;
            return true;
        }
    }
    if (equal(m->name, name.s, name.len, true))
        return true;
    for (uint32_t i = 0; i < m->n_aliases; i++) {
        if (equal(m->aliases[i], name.s, name.len, true)) {
            *out_shown = name.s;
            return true;
        }
    }
    tail = last_segment(name.s, name.len);
    tail_len = name.len - (size_t)(tail - name.s);
    return equal(last_segment(m->name, strlen(m->name)), tail, tail_len, true) &&
           (tail != name.s) != (strchr(m->name, '/') != NULL); /* only one of them has a path */
}

uint32_t rt_model_n_vocab(const struct rt_model *m)
{
    return m->conf.n_vocab > 0 ? m->conf.n_vocab : ps_tok_n_vocab(m->tok);
}

/* ---- what excludes each other ---- */

static bool fail(struct rt_fail *f, enum rt_fail_row row, const char *param, const char *text)
{
    rt_fail_set(f, row, param, "%s", text);
    return false;
}

static bool settle_stream(const struct rt_params *p, struct rt_fail *f)
{
    if (p->has_stream_options && !p->stream)
        return fail(f, RT_E7_CONFLICT, "stream_options",
                    "'stream_options' is only allowed when 'stream' is true");
    if (p->stream && p->prompt_logprobs > 0)
        return fail(f, RT_E7_CONFLICT, "prompt_logprobs",
                    "'prompt_logprobs' is not available with 'stream'");
    return true;
}

static bool settle_n(const struct rt_params *p, struct rt_fail *f)
{
    if (p->n > p->conf->max_n) {
        rt_fail_set(f, RT_E6_VALUE, "n", "'n' must be between 1 and %lld",
                    (long long)p->conf->max_n);
        return false;
    }
    if (p->best_of == RT_ABSENT || p->best_of == 0)
        return true;
    if (p->best_of > 1 && p->stream)
        return fail(f, RT_E7_CONFLICT, "best_of", "'best_of' is not available with 'stream'");
    if (p->best_of < p->n)
        return fail(f, RT_E6_VALUE, "best_of", "'best_of' must not be less than 'n'");
    if (p->best_of > p->n)
        return fail(f, RT_E8_UNSUPPORTED_VALUE, "best_of",
                    "'best_of' greater than 'n' is not supported by this server");
    return true;
}

static bool settle_logprobs(struct rt_params *p, struct rt_fail *f)
{
    int64_t shown = p->dialect == RT_CHAT ? p->top_logprobs : p->n_logprobs;
    const char *name = p->dialect == RT_CHAT ? "top_logprobs" : "logprobs";
    int64_t max = p->conf->max_logprobs;

    if (p->dialect == RT_CHAT && shown > 0 && !p->logprobs)
        return fail(f, RT_E7_CONFLICT, name, "'top_logprobs' needs 'logprobs' to be true");
    if (shown > max || p->prompt_logprobs > max) {
        rt_fail_set(f, RT_E6_VALUE, shown > max ? name : "prompt_logprobs",
                    "At most %lld alternatives may be asked for", (long long)max);
        return false;
    }
    p->n_top = shown == RT_ABSENT ? -1 : (int32_t)shown;
    if (p->dialect == RT_CHAT)
        p->n_top = p->logprobs ? (shown == RT_ABSENT ? 0 : (int32_t)shown) : -1;
    p->n_prompt_top =
        p->prompt_logprobs == RT_ABSENT || p->stream ? -1 : (int32_t)p->prompt_logprobs;
    return true;
}

static bool settle_max(struct rt_params *p, struct rt_fail *f)
{
    bool newer = p->max_completion_tokens != RT_ABSENT;
    int64_t max = newer ? p->max_completion_tokens : p->max_tokens;

    p->max_param = newer ? "max_completion_tokens" : "max_tokens";
    p->has_max = max != RT_ABSENT;
    p->max_out = PB_NO_LIMIT;
    if (p->has_max)
        p->max_out = max < (int64_t)PB_NO_LIMIT - 1 ? (uint32_t)max : PB_NO_LIMIT - 1;
    else if (p->dialect == RT_COMPLETION)
        p->max_out = 16; /* the API's default */
    if (p->has_max && max == 0) {
        if (!p->echo)
            return fail(f, RT_E6_VALUE, p->max_param,
                        "'max_tokens' must be at least 1; 0 needs 'echo'");
        p->score_only = true;
        p->max_out = 1;
    }
    if (p->min_tokens > (int64_t)p->max_out)
        return fail(f, RT_E6_VALUE, "min_tokens",
                    "'min_tokens' must not be greater than 'max_tokens'");
    return true;
}

static bool settle_dialect(struct rt_params *p, struct rt_fail *f)
{
    if (p->dialect == RT_CHAT && p->messages == NULL)
        return fail(f, RT_E4_MISSING, "messages", "Missing required parameter: 'messages'");
    if (p->dialect == RT_CHAT && ps_json_n(p->messages) == 0)
        return fail(f, RT_E6_VALUE, "messages", "'messages' must not be empty");
    if (p->dialect == RT_COMPLETION && p->prompt == NULL)
        return fail(f, RT_E4_MISSING, "prompt",
                    p->messages != NULL ? "Missing required parameter: 'prompt' ('messages' "
                                          "belongs to /v1/chat/completions)"
                                        : "Missing required parameter: 'prompt'");
    if (p->suffix.s != NULL && p->suffix.len > 0)
        return fail(f, RT_E8_UNSUPPORTED, "suffix", "'suffix' is not supported by this model");
    if (p->continue_final == 1 && p->add_generation_prompt == 1)
        return fail(f, RT_E7_CONFLICT, "continue_final_message",
                    "'continue_final_message' and 'add_generation_prompt' exclude each other");
    return true;
}

/* Request over the model's generation_config over the API's default. */
static double pick(double asked, bool has, double of_model, double otherwise)
{
    return !isnan(asked) ? asked : has ? of_model : otherwise;
}

static float clamp(double v, double lo, double hi)
{
    return (float)(v < lo ? lo : v > hi ? hi : v);
}

static void settle_sampling(struct rt_params *p)
{
    struct ps_gen_defaults none = {0};
    const struct ps_gen_defaults *d =
        p->conf->generation_config == RT_GEN_CONFIG_MODEL ? &p->model->conf.gen : &none;
    struct pb_sampling *s = &p->samp;
    double top_p = pick(p->top_p, d->has_top_p, d->top_p, 1);

    s->temperature = clamp(pick(p->temperature, d->has_temperature, d->temperature, 1), 0, 100);
    if ((double)s->temperature < GREEDY_BELOW)
        s->temperature = 0;
    s->min_p = clamp(pick(p->min_p, d->has_min_p, d->min_p, 0), 0, 1);
    s->rep_penalty =
        clamp(pick(p->rep_penalty, d->has_rep_penalty, d->rep_penalty, 1), (double)FLT_MIN, 100);
    s->presence_penalty = clamp(pick(p->presence_penalty, false, 0, 0), -2, 2);
    s->frequency_penalty = clamp(pick(p->frequency_penalty, false, 0, 0), -2, 2);
    s->top_k = d->has_top_k ? d->top_k : -1;
    if (p->top_k != RT_ABSENT)
        s->top_k = (int32_t)p->top_k;
    if (top_p > 0) {
        s->top_p = clamp(top_p, (double)FLT_MIN, 1);
    } else { /* the smallest set that is not empty: the best token */
        s->top_p = 1;
        s->top_k = 1;
    }
    s->n_top = p->n_top;
    s->n_prompt_top = p->n_prompt_top;
    if (p->echo && p->n_top > s->n_prompt_top)
        s->n_prompt_top = p->n_top;
    if (p->seed == RT_ABSENT || p->seed == -1)
        ps_random_bytes(&s->seed, sizeof(s->seed));
    else
        s->seed = (uint64_t)p->seed;
}

bool rt_params_settle(struct rt_params *p, struct rt_fail *f)
{
    if (!settle_dialect(p, f))
        return false;
    if (!rt_model_resolve(p->model, p->model_name, &p->shown_model)) {
        rt_fail_set(f, RT_E10_MODEL, "model", "The model `%.200s` does not exist.",
                    p->model_name.s);
        return false;
    }
    p->n = p->n == RT_ABSENT ? 1 : p->n;
    p->min_tokens = p->min_tokens == RT_ABSENT ? 0 : p->min_tokens;
    p->priority = p->priority == RT_ABSENT ? 0 : p->priority;
    if (!settle_stream(p, f) || !settle_n(p, f) || !settle_logprobs(p, f) || !settle_max(p, f))
        return false;
    settle_sampling(p);
    return true;
}

uint64_t rt_params_seed(const struct rt_params *p, uint32_t choice)
{
    uint64_t mix[2] = {p->samp.seed, choice};

    return choice == 0 ? p->samp.seed : ps_hash64(mix, sizeof(mix), 0);
}

/* ---- template variables ---- */

static void add_kwarg(const struct rt_params *p, struct ps_buf *out, const char *name,
                      const char *json)
{
    if (p->template_kwargs != NULL && ps_json_get(p->template_kwargs, name) != NULL)
        return; /* the explicit one wins */
    ps_buf_addf(out, "%s\"%s\":%s", out->len > 1 ? "," : "", name, json);
}

static bool effort_is(const struct rt_params *p, const char *name)
{
    const char *s;
    size_t len;

    if (p->effort == NULL || ps_json_type(p->effort) != PS_JSON_STR)
        return false;
    s = ps_json_str(p->effort, &len);
    return equal(name, s, len, false);
}

void rt_params_kwargs(const struct rt_params *p, struct ps_buf *out)
{
    int8_t on = p->thinking != -1 ? p->thinking : p->enable_thinking;
    struct ps_buf text = PS_BUF_INIT;
    const struct ps_json *v;
    const char *key;
    void *it = NULL;

    PS_ASSERT(out->len == 0);
    ps_buf_add_byte(out, '{');
    while (p->template_kwargs != NULL &&
           (v = ps_json_next(p->template_kwargs, &it, &key)) != NULL) {
        if (out->len > 1)
            ps_buf_add_byte(out, ',');
        ps_json_add_str(out, key, strlen(key));
        ps_buf_add_byte(out, ':');
        ps_json_write(out, v, false);
    }
    if (p->effort != NULL && !effort_is(p, "none")) {
        ps_json_write(&text, p->effort, false);
        add_kwarg(p, out, "reasoning_effort", text.data);
        ps_buf_fini(&text);
    }
    if (on == -1 && p->effort != NULL)
        on = effort_is(p, "none") ? 0 : 1;
    if (on != -1) {
        add_kwarg(p, out, "enable_thinking", on ? "true" : "false");
        add_kwarg(p, out, "thinking", on ? "true" : "false");
    }
    ps_buf_add_byte(out, '}');
    if (out->len == 2)
        ps_buf_clear(out);
}
