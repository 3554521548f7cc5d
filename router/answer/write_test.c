#include "router/answer/write.h"

#include <math.h>

#include "router/request/tok_fixture.h"

/* One call as the writers see it: two choices of one prompt. */
struct world {
    struct rt_call c;
    struct rt_prompt prompt;
    struct rt_choice choices[2];
    uint32_t ids[3];
    struct ps_buf out;
};

static struct ps_tok *tok; /* made once for all tests */

static void open_world(struct world *w, enum rt_dialect d)
{
    *w = (struct world){.ids = {'h', 'i', 0xF0}};
    ps_arena_init(&w->c.arena, 0);
    w->c.p.dialect = d;
    w->c.p.n_top = w->c.p.n_prompt_top = -1;
    w->c.id = d == RT_CHAT ? "chatcmpl-1" : "cmpl-1";
    w->c.model = "m";
    w->c.created_s = 1766000000;
    w->c.stream_conf.tok = tok;
    w->c.prompts = &w->prompt;
    w->c.n_prompts = 1;
    w->c.choices = w->choices;
    w->c.n_choices = 1;
    w->prompt.ids = (struct ps_tok_ids){w->ids, 3, 3};
    w->prompt.n_tokens = 9;
    for (uint32_t i = 0; i < 2; i++) {
        w->choices[i] = (struct rt_choice){.call = &w->c, .prompt = &w->prompt, .index = i};
        rt_stream_init(&w->choices[i].st, &w->c.stream_conf, &w->c.arena);
    }
    w->c.chunk_head = rt_write_chunk_head(&w->c);
}

static void close_world(struct world *w)
{
    rt_stream_fini(&w->choices[0].st);
    rt_stream_fini(&w->choices[1].st);
    ps_arena_fini(&w->c.arena);
    ps_buf_fini(&w->out);
}

static void push(struct rt_choice *ch, const char *s)
{
    static const struct pb_logprob lp = {
        .logprob = -0.1f, .rank = 1, .n_top = 2, .top = {{'h', -0.1f}, {'x', -2.5f}}};

    for (; *s != '\0'; s++)
        (void)rt_stream_push(&ch->st, (uint8_t)*s, &lp);
    ch->n_shown = ch->st.n_tokens;
}

static void over(struct rt_choice *ch, enum rt_why why)
{
    ch->why = why;
    rt_stream_end(&ch->st);
}

static void expect(struct world *w, const char *want)
{
    ps_buf_add_byte(&w->out, '\0');
    assert_string_equal(w->out.data, want);
    ps_buf_clear(&w->out);
}

#define HEAD \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1766000000," \
    "\"model\":\"m\",\"choices\":["
#define ROLE \
    "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null," \
    "\"finish_reason\":null}]"
#define USAGE(n, sum) \
    "{\"prompt_tokens\":9,\"completion_tokens\":" #n ",\"total_tokens\":" #sum \
    ",\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":" \
    "{\"reasoning_tokens\":0}}"

static void a_chat_stream_is_the_bytes_of_the_contract(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    push(&w.choices[0], "Hi");
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w,
           HEAD ROLE "}\n\n" HEAD "{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"logprobs\":null,"
                     "\"finish_reason\":null}]}\n\n");
    push(&w.choices[0], "!");
    over(&w.choices[0], RT_WHY_EOS);
    rt_chat_add_events(&w.out, &w.choices[0]);
    rt_write_usage_event(&w.out, &w.c);
    expect(&w, HEAD "{\"index\":0,\"delta\":{\"content\":\"!\"},\"logprobs\":null,"
                    "\"finish_reason\":null}]}\n\n" HEAD
                    "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\","
                    "\"stop_reason\":null}]}\n\n");
    close_world(&w);
}

static void usage_is_null_until_its_own_event(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    w.c.p.include_usage = 1;
    push(&w.choices[0], "Hi!");
    over(&w.choices[0], RT_WHY_LENGTH);
    rt_chat_add_events(&w.out, &w.choices[0]);
    rt_write_usage_event(&w.out, &w.c);
    expect(&w, HEAD ROLE ",\"usage\":null}\n\n" HEAD
                         "{\"index\":0,\"delta\":{\"content\":\"Hi!\"},\"logprobs\":null,"
                         "\"finish_reason\":null}],\"usage\":null}\n\n" HEAD
                         "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\","
                         "\"stop_reason\":null}],\"usage\":null}\n\n" HEAD
                         "],\"usage\":" USAGE(3, 12) "}\n\n");
    close_world(&w);
}

static void continuous_usage_starts_at_zero(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    w.c.p.continuous_usage = 1;
    push(&w.choices[0], "Hi");
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w,
           HEAD ROLE ",\"usage\":" USAGE(
               0, 9) "}\n\n" HEAD "{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"logprobs\":null,"
                     "\"finish_reason\":null}],\"usage\":" USAGE(2, 11) "}\n\n");
    close_world(&w);
}

static void text_that_is_held_makes_no_event(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    (void)rt_stream_push(&w.choices[0].st, 0xC3, NULL);
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w, "");
    (void)rt_stream_push(&w.choices[0].st, 0xA9, NULL);
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w, HEAD ROLE "}\n\n" HEAD "{\"index\":0,\"delta\":{\"content\":\"\xc3\xa9\"},"
                         "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    close_world(&w);
}

static void an_empty_stream_has_a_role_and_a_finish(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    over(&w.choices[0], RT_WHY_STOP_ID);
    w.choices[0].matched_id = 77;
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w, HEAD ROLE "}\n\n" HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,"
                         "\"finish_reason\":\"stop\",\"stop_reason\":77}]}\n\n");
    close_world(&w);
}

static void log_probabilities_and_ids_travel_with_their_tokens(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    w.c.p.n_top = 1;
    w.c.p.return_token_ids = 1;
    w.prompt.n_tokens = 3;
    w.c.stream_conf.keep_ids = w.c.stream_conf.keep_logprobs = true;
    push(&w.choices[0], "h");
    rt_chat_add_events(&w.out, &w.choices[0]);
    expect(&w, HEAD ROLE ",\"prompt_token_ids\":[104,105,240]}\n\n" HEAD
                         "{\"index\":0,\"delta\":{\"content\":\"h\"},\"logprobs\":{\"content\":[{"
                         "\"token\":\"h\",\"logprob\":-0.1,\"bytes\":[104],\"top_logprobs\":[{"
                         "\"token\":\"h\",\"logprob\":-0.1,\"bytes\":[104]}]}],\"refusal\":null},"
                         "\"finish_reason\":null,\"token_ids\":[104]}]}\n\n");
    (void)rt_stream_push(&w.choices[0].st, 0xF0, NULL); /* no text yet, but a token */
    rt_chat_add_events(&w.out, &w.choices[0]);
    ps_buf_add_byte(&w.out, '\0');
    assert_non_null(strstr(w.out.data, "\"delta\":{},\"logprobs\":{\"content\":[{\"token\":"
                                       "\"\xef\xbf\xbd\",\"logprob\":0.0,\"bytes\":[240]"));
    close_world(&w);
}

static void a_whole_chat_answer(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    w.c.n_choices = 2;
    push(&w.choices[0], "He\"");
    over(&w.choices[0], RT_WHY_EOS);
    over(&w.choices[1], RT_WHY_LENGTH);
    rt_chat_add_answer(&w.out, &w.c);
    expect(&w, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1766000000,"
               "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
               "\"content\":\"He\\\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":"
               "\"stop\",\"stop_reason\":null},{\"index\":1,\"message\":{\"role\":\"assistant\","
               "\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\","
               "\"stop_reason\":null}],\"usage\":" USAGE(3, 12) "}");
    close_world(&w);
}

#define TEXT_HEAD \
    "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1766000000,\"model\":" \
    "\"m\",\"choices\":[{\"index\":0,\"text\":"

static void a_completion_stream(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, RT_COMPLETION);
    push(&w.choices[0], "Hi");
    over(&w.choices[0], RT_WHY_LENGTH);
    rt_completion_add_events(&w.out, &w.choices[0]);
    expect(&w, TEXT_HEAD "\"Hi\",\"logprobs\":null,\"finish_reason\":null}]}\n\n" TEXT_HEAD
                         "\"\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}"
                         "]}\n\n");
    close_world(&w);
}

static void echo_comes_first_and_carries_the_prompts_scores(void **state)
{
    struct pb_logprob scores[3] = {
        {0}, {.logprob = -1.5f, .rank = 2, .n_top = 1, .top = {{'a', -0.25f}}}, {.logprob = -2}};
    struct world w;

    (void)state;
    open_world(&w, RT_COMPLETION);
    w.c.p.echo = 1;
    w.c.p.n_top = 1;
    w.c.stream_conf.keep_logprobs = true;
    w.prompt.n_tokens = w.prompt.n_scores = 3;
    w.prompt.scores = scores;
    w.prompt.text = "hi\xef\xbf\xbd";
    w.prompt.text_len = 5;
    push(&w.choices[0], "h");
    rt_completion_add_events(&w.out, &w.choices[0]);
    expect(&w,
           TEXT_HEAD "\"hi\xef\xbf\xbd\",\"logprobs\":{\"tokens\":[\"h\",\"i\",\"\xef\xbf\xbd\"],"
                     "\"token_logprobs\":[null,-1.5,-2.0],\"top_logprobs\":[null,{\"i\":-1.5,"
                     "\"a\":-0.25},{\"\xef\xbf\xbd\":-2.0}],\"text_offset\":[0,1,2]},"
                     "\"finish_reason\":null}]}\n\n" TEXT_HEAD
                     "\"h\",\"logprobs\":{\"tokens\":[\"h\"],\"token_logprobs\":[-0.1],"
                     "\"top_logprobs\":[{\"h\":-0.1}],\"text_offset\":[3]},\"finish_reason\":"
                     "null}]}\n\n");
    close_world(&w);
}

static void prompt_logprobs_name_ids_ranks_and_text(void **state)
{
    struct pb_logprob scores[2] = {
        {0}, {.logprob = -1.5f, .rank = 7, .n_top = 2, .top = {{'a', -0.25f}, {'b', -1}}}};
    struct world w;

    (void)state;
    open_world(&w, RT_CHAT);
    w.c.p.n_prompt_top = 1;
    w.prompt.n_tokens = w.prompt.n_scores = 2;
    w.prompt.scores = scores;
    rt_write_prompt_logprobs(&w.out, &w.c, &w.prompt);
    expect(&w, "[null,{\"105\":{\"logprob\":-1.5,\"rank\":7,\"decoded_token\":\"i\"},"
               "\"97\":{\"logprob\":-0.25,\"rank\":1,\"decoded_token\":\"a\"}}]");
    close_world(&w);
}

static void a_log_probability_is_short_finite_and_exact(void **state)
{
    static const struct {
        float v;
        const char *want;
    } rows[] = {
        {-0.1f, "-0.1"},    {0, "0.0"},
        {-3, "-3.0"},       {-(float)INFINITY, "-9999.0"},
        {-1e-8f, "-1e-08"}, {-0.0015993118f, "-0.0015993118"},
    };
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(rows); i++) {
        ps_buf_clear(&b);
        rt_write_logprob(&b, rows[i].v);
        assert_string_equal(b.data, rows[i].want);
    }
    ps_buf_fini(&b);
}

static int make_tok(void **state)
{
    (void)state;
    tok = fix_tok(NULL, 0);
    return 0;
}

static int drop_tok(void **state)
{
    (void)state;
    ps_tok_destroy(tok);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_stream_is_the_bytes_of_the_contract),
        cmocka_unit_test(usage_is_null_until_its_own_event),
        cmocka_unit_test(continuous_usage_starts_at_zero),
        cmocka_unit_test(text_that_is_held_makes_no_event),
        cmocka_unit_test(an_empty_stream_has_a_role_and_a_finish),
        cmocka_unit_test(log_probabilities_and_ids_travel_with_their_tokens),
        cmocka_unit_test(a_whole_chat_answer),
        cmocka_unit_test(a_completion_stream),
        cmocka_unit_test(echo_comes_first_and_carries_the_prompts_scores),
        cmocka_unit_test(prompt_logprobs_name_ids_ranks_and_text),
        cmocka_unit_test(a_log_probability_is_short_finite_and_exact),
    };

    return cmocka_run_group_tests(tests, make_tok, drop_tok);
}
