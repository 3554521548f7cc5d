#include "common/model/config.h"

#include "common/test.h"

#include <stdio.h>

#define QWEN3_HEAD \
    "\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_size\":1024," \
    "\"num_hidden_layers\":28,\"num_attention_heads\":16,\"num_key_value_heads\":8,\"head_dim\":" \
    "128," \
    "\"intermediate_size\":3072,\"vocab_size\":151936,\"max_position_embeddings\":40960," \
    "\"rms_norm_eps\":1e-6"
#define LLAMA_HEAD \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":2048," \
    "\"num_hidden_layers\":16,\"num_attention_heads\":32,\"intermediate_size\":8192," \
    "\"vocab_size\":128256"

static int parse(struct ps_model_config *c, const char *json, const char *gen, struct ps_buf *err)
{
    ps_buf_clear(err);
    return ps_model_config_parse(c, json, strlen(json), gen, gen != NULL ? strlen(gen) : 0, err);
}

static void must_parse(struct ps_model_config *c, const char *json, const char *gen)
{
    struct ps_buf err = PS_BUF_INIT;

    if (parse(c, json, gen, &err) != PS_MODEL_OK)
        fail_msg("refused: %s", err.data);
    ps_buf_fini(&err);
}

/* Refused with one sentence that holds text. */
static void must_refuse(const char *json, const char *gen, const char *text)
{
    struct ps_model_config c = {.hidden = 77};
    struct ps_buf err = PS_BUF_INIT;

    if (parse(&c, json, gen, &err) != PS_MODEL_E_BAD)
        fail_msg("accepted: %s", json);
    if (strstr(err.data, text) == NULL || strchr(err.data, '\n') != NULL || err.len > 200)
        fail_msg("expected '%s' in '%s'", text, err.data);
    assert_int_equal(c.hidden, 77); /* outputs are untouched on failure */
    ps_buf_fini(&err);
}

static void geometry_and_flags_of_qwen3_are_read(void **state)
{
    struct ps_model_config c;

    (void)state;
    must_parse(
        &c,
        "{" QWEN3_HEAD ",\"tie_word_embeddings\":true,\"rope_theta\":1000000,"
        "\"torch_dtype\":\"bfloat16\",\"eos_token_id\":151645,\"hidden_act\":\"silu\","
        "\"sliding_window\":4096,\"use_sliding_window\":false,\"rope_scaling\":null}",
        "{\"eos_token_id\":[151645,151643],\"temperature\":0.6,\"top_p\":0.95,\"top_k\":20}");
    assert_int_equal(c.family, PS_FAMILY_QWEN3);
    assert_int_equal(c.hidden, 1024);
    assert_int_equal(c.n_layer, 28);
    assert_int_equal(c.n_head, 16);
    assert_int_equal(c.n_kv_head, 8);
    assert_int_equal(c.d_head, 128);
    assert_int_equal(c.intermediate, 3072);
    assert_int_equal(c.n_vocab, 151936);
    assert_int_equal(c.max_pos, 40960);
    assert_true(c.tied && c.qk_norm && !c.qkv_bias && !c.o_bias && !c.mlp_bias);
    assert_true(c.rope.theta == 1e6 && c.rope.type == PS_ROPE_DEFAULT && c.rope.partial == 1.0);
    assert_string_equal(c.dtype, "bf16");
    assert_int_equal(c.n_eos, 2); /* the union of both files, each id once */
    assert_int_equal(c.eos[0], 151645);
    assert_int_equal(c.eos[1], 151643);
    assert_true(c.gen.has_temperature && c.gen.temperature == 0.6);
    assert_true(c.gen.has_top_p && c.gen.has_top_k && c.gen.top_k == 20 && !c.gen.has_min_p);
}

static void llama_defaults_are_those_of_the_format(void **state)
{
    struct ps_model_config c;

    (void)state;
    must_parse(&c, "{" LLAMA_HEAD "}", NULL);
    assert_int_equal(c.family, PS_FAMILY_LLAMA);
    assert_int_equal(c.n_kv_head, 32); /* as many as query heads */
    assert_int_equal(c.d_head, 64);    /* hidden / heads */
    assert_int_equal(c.max_pos, 2048);
    assert_true(c.rope.theta == 10000.0 && c.eps == 1e-6 && !c.tied && c.n_eos == 0);
    must_parse(&c,
               "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":2,"
               "\"num_attention_heads\":4,\"intermediate_size\":96,\"vocab_size\":10}",
               NULL);
    assert_int_equal(c.family, PS_FAMILY_LLAMA); /* without architectures the type decides */
}

static void biases_follow_the_family(void **state)
{
    struct ps_model_config c;

    (void)state;
    must_parse(&c, "{" LLAMA_HEAD ",\"attention_bias\":true,\"mlp_bias\":true}", NULL);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias);
    must_parse(&c, "{" QWEN3_HEAD ",\"attention_bias\":true}", NULL);
    assert_true(c.qkv_bias && c.o_bias && !c.mlp_bias);
    must_parse(&c,
               "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":64,"
               "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":96,"
               "\"vocab_size\":10}",
               NULL);
    assert_true(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm);
}

static void rope_reads_old_and_new_style_alike(void **state)
{
    static const char *const styles[] = {
        "{" LLAMA_HEAD ",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
        "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192}}",
        "{" LLAMA_HEAD ",\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"llama3\","
        "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192}}",
        "{" LLAMA_HEAD ",\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\","
        "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192}}",
    };
    struct ps_model_config c;

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(styles); i++) {
        must_parse(&c, styles[i], NULL);
        assert_int_equal(c.rope.type, PS_ROPE_LLAMA3);
        assert_true(c.rope.theta == 500000.0 && c.rope.factor == 32.0 && c.rope.low_freq == 1.0);
        assert_true(c.rope.high_freq == 4.0 && c.rope.original_max_pos == 8192);
    }
    must_parse(&c, "{" LLAMA_HEAD ",\"rope_scaling\":{\"rope_type\":\"mrope\"}}", NULL);
    assert_int_equal(c.rope.type, PS_ROPE_DEFAULT);
}

static void text_config_wins_and_tying_is_read_outside_first(void **state)
{
    struct ps_model_config c;

    (void)state;
    must_parse(&c,
               "{\"architectures\":[\"Qwen3ForCausalLM\"],\"tie_word_embeddings\":true,"
               "\"hidden_size\":1,\"text_config\":{" QWEN3_HEAD ",\"tie_word_embeddings\":false,"
               "\"dtype\":\"float16\"}}",
               NULL);
    assert_int_equal(c.hidden, 1024);
    assert_true(c.tied);
    assert_string_equal(c.dtype, "f16");
}

static void eos_ids_outside_the_vocabulary_are_dropped(void **state)
{
    struct ps_model_config c;
    char list[512] = "{\"eos_token_id\":[", id[16];

    (void)state;
    must_parse(&c, "{" LLAMA_HEAD ",\"eos_token_id\":[128256,-1,\"x\",7,7,null]}", "{}");
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 7);
    for (int i = 0; i < 40; i++) {
        (void)snprintf(id, sizeof(id), "%s%d", i > 0 ? "," : "", i);
        memcpy(list + strlen(list), id, strlen(id) + 1);
    }
    memcpy(list + strlen(list), "]}", 3);
    must_parse(&c, "{" LLAMA_HEAD "}", list);
    assert_int_equal(c.n_eos, PS_MAX_EOS);
}

static void generation_defaults_out_of_range_are_left_out(void **state)
{
    struct ps_model_config c;

    (void)state;
    must_parse(&c, "{" LLAMA_HEAD "}",
               "{\"temperature\":-1,\"top_p\":0,\"top_k\":\"x\",\"min_p\":2,"
               "\"repetition_penalty\":1.05}");
    assert_true(!c.gen.has_temperature && !c.gen.has_top_p && !c.gen.has_top_k && !c.gen.has_min_p);
    assert_true(c.gen.has_rep_penalty && c.gen.rep_penalty == 1.05);
    must_parse(&c, "{" LLAMA_HEAD "}", "{\"do_sample\":false,\"temperature\":0.7}");
    assert_true(c.gen.has_temperature && c.gen.temperature == 0.0);
    must_refuse("{" LLAMA_HEAD "}", "[1]", "generation_config.json: not a valid JSON object");
    must_refuse("{" LLAMA_HEAD "}", "{", "generation_config.json: not a valid JSON object");
}

static void what_cannot_be_run_is_refused_by_key(void **state)
{
    static const struct {
        const char *more, *text;
    } cases[] = {
        {"\"hidden_act\":\"gelu\"", "hidden_act is not silu"},
        {"\"hidden_act\":3", "hidden_act is not silu"},
        {"\"use_sliding_window\":true", "use_sliding_window is not supported"},
        {"\"layer_types\":[\"full_attention\",\"linear_attention\"]", "layer_types holds"},
        {"\"layer_types\":\"full_attention\"", "layer_types is not a list"},
        {"\"quantization_config\":{\"quant_method\":\"fp8\"}", "quantization_config is not"},
        {"\"attention_bias\":1", "attention_bias is neither true nor false"},
        {"\"tie_word_embeddings\":\"no\"", "tie_word_embeddings is neither"},
        {"\"rms_norm_eps\":0", "rms_norm_eps is out of range"},
        {"\"rms_norm_eps\":\"x\"", "rms_norm_eps is not a finite number"},
        {"\"num_key_value_heads\":5", "num_attention_heads is not a multiple"},
        {"\"num_key_value_heads\":0", "num_key_value_heads is not an integer"},
        {"\"head_dim\":65", "head_dim is odd"},
        {"\"head_dim\":512", "head_dim is not an integer in the supported range"},
        {"\"hidden_size\":1e3", "hidden_size is not an integer"},
        {"\"hidden_size\":99999999999", "hidden_size is not an integer"},
        {"\"hidden_size\":null", "hidden_size is missing"},
        {"\"num_hidden_layers\":0", "num_hidden_layers is not an integer"},
        {"\"vocab_size\":-3", "vocab_size is not an integer"},
        {"\"rope_theta\":1", "rope_theta is out of range"},
        {"\"rope_theta\":true", "rope_theta is not a finite number"},
        {"\"partial_rotary_factor\":1.5", "partial_rotary_factor is out of range"},
        {"\"partial_rotary_factor\":0.01", "partial_rotary_factor is out of range"},
        {"\"rope_scaling\":7", "rope_scaling is not an object"},
        {"\"rope_scaling\":{\"rope_type\":\"longrope\"}", "rope_type is not one of"},
        {"\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}", "rope_type is not one of"},
        {"\"rope_scaling\":{\"rope_type\":3}", "rope_type is not one of"},
        {"\"rope_scaling\":{\"rope_type\":\"linear\"}", "linear has no factor"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "llama3 lacks"},
        {"\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":0.5}", "yarn has"},
        {"\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"beta_slow\":0}", "yarn has"},
        {"\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e4}}", "kinds of layers"},
        {"\"original_max_position_embeddings\":-4", "original_max_position_embeddings is out"},
    };
    char json[1024];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(cases); i++) {
        /* The later of two equal keys counts. */
        (void)snprintf(json, sizeof(json), "{" LLAMA_HEAD ",%s}", cases[i].more);
        must_refuse(json, NULL, cases[i].text);
    }
}

static void a_document_that_is_no_config_is_refused(void **state)
{
    (void)state;
    must_refuse("", NULL, "config.json: not valid JSON");
    must_refuse("{\"a\":", NULL, "config.json: not valid JSON");
    must_refuse("[]", NULL, "is not an object");
    must_refuse("{}", NULL, "architectures names no supported family");
    must_refuse("{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\"}", NULL,
                "architectures names no supported family");
    must_refuse("{\"architectures\":[\"LlamaForCausalLM\"],\"text_config\":3}", NULL, "is missing");
    /* Qwen3 sizes have head_dim != hidden / heads: guessing would load and talk nonsense. */
    must_refuse("{\"architectures\":[\"Qwen3ForCausalLM\"],\"hidden_size\":64,"
                "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":96,"
                "\"vocab_size\":10}",
                NULL, "head_dim is missing");
}

static void a_directory_without_config_is_refused(void **state)
{
    struct ps_model_config c;
    struct ps_buf err = PS_BUF_INIT;

    (void)state;
    assert_int_equal(ps_model_config_load(&c, "/nonexistent", &err), PS_MODEL_E_BAD);
    assert_non_null(strstr(err.data, "config.json is missing"));
    ps_buf_fini(&err);
}

/* Values of the reference implementation (transformers 5.23, ROPE_INIT_FUNCTIONS). */
struct want {
    uint32_t i;
    float f;
};

static void check_rope_numbers(const char *json, const struct want *want, size_t n, uint32_t d_rot,
                               float scale)
{
    float f[256], out_scale;
    struct ps_model_config c;
    uint32_t out_d;

    must_parse(&c, json, NULL);
    ps_rope_frequencies(&c, f, &out_d, &out_scale);
    assert_int_equal(out_d, d_rot);
    assert_float_equal(out_scale, scale, 1e-6);
    for (size_t i = 0; i < n; i++) {
        float err = f[want[i].i] / want[i].f - 1.0f;

        /* A few units in the last place; the reference blends in f32, which loses digits to 1 - ramp. */
        if (!(err < 2e-6f && err > -2e-6f))
            fail_msg("frequency %u is %.9g, expected %.9g", want[i].i, (double)f[want[i].i],
                     (double)want[i].f);
    }
}

#define D64 \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":512,\"num_hidden_layers\":1," \
    "\"num_attention_heads\":8,\"intermediate_size\":8,\"vocab_size\":8,"

static void default_frequencies_are_the_references(void **state)
{
    static const struct want want[] = {{0, 1.0f},
                                       {1, 0.8058422207832336f},
                                       {20, 0.01333521492779255f},
                                       {63, 1.2409377632138785e-06f}};

    (void)state;
    check_rope_numbers("{" QWEN3_HEAD ",\"rope_theta\":1000000}", want, PS_ARRAY_LEN(want), 128,
                       1.0f);
}

static void linear_frequencies_are_the_references(void **state)
{
    static const struct want want[] = {{0, 0.25f},
                                       {1, 0.18747355043888092f},
                                       {13, 0.0059284339658916f},
                                       {31, 3.333803761051968e-05f}};

    (void)state;
    check_rope_numbers(D64 "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4.0}}", want,
                       PS_ARRAY_LEN(want), 64, 1.0f);
}

static void llama3_frequencies_are_the_references(void **state)
{
    static const struct want want[] = {
        {0, 1.0f},
        {14, 0.0032114461064338684f}, /* the last that is kept */
        {15, 0.0012905480107292533f}, /* blended */
        {16, 0.000429556705057621f},
        {17, 9.708286233944818e-05f},
        {18, 1.9461638657958247e-05f}, /* stretched */
        {31, 9.418306490260875e-08f},
    };

    (void)state;
    check_rope_numbers(D64 "\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\","
                           "\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                           "\"original_max_position_embeddings\":8192}}",
                       want, PS_ARRAY_LEN(want), 64, 1.0f);
}

static void yarn_frequencies_are_the_references(void **state)
{
    static const struct want plain[] = {{0, 1.0f},
                                        {20, 0.01333521492779255f},
                                        {24, 0.005375321488827467f},
                                        {28, 0.0018482765881344676f},
                                        {31, 0.000802959781140089f},
                                        {63, 3.102344408034696e-07f}};
    static const struct want exact_ends[] = {{8, 0.10000000149011612f},
                                             {12, 0.029808824881911278f},
                                             {16, 0.005082806572318077f},
                                             {20, 0.00023376691387966275f},
                                             {24, 6.25000029685907e-05f}};
    static const struct want given[] = {{11, 0.03912856802344322f},
                                        {16, 0.005673076957464218f},
                                        {20, 0.0008817889611236751f},
                                        {31, 8.33450940262992e-06f}};

    (void)state;
    check_rope_numbers("{" QWEN3_HEAD ",\"rope_theta\":1000000,\"rope_scaling\":{\"type\":\"yarn\","
                       "\"factor\":4.0,\"original_max_position_embeddings\":32768}}",
                       plain, PS_ARRAY_LEN(plain), 128, 1.138629436111989f);
    check_rope_numbers(D64 "\"max_position_embeddings\":65536,\"rope_parameters\":{"
                           "\"rope_type\":\"yarn\",\"factor\":16.0,\"truncate\":false,"
                           "\"mscale\":0.707,\"mscale_all_dim\":1.0,\"beta_fast\":24,"
                           "\"beta_slow\":2,\"original_max_position_embeddings\":4096}}",
                       exact_ends, PS_ARRAY_LEN(exact_ends), 64, 0.9363975061530204f);
    check_rope_numbers(D64 "\"max_position_embeddings\":65536,\"rope_parameters\":{"
                           "\"rope_type\":\"yarn\",\"factor\":16.0,\"attention_factor\":1.25,"
                           "\"original_max_position_embeddings\":4096}}",
                       given, PS_ARRAY_LEN(given), 64, 1.25f);
}

static void partial_rotation_uses_its_own_width(void **state)
{
    static const struct want want[] = {{0, 1.0f}, {1, 0.31622776f}, {7, 0.00031622776f}};

    (void)state;
    check_rope_numbers(D64 "\"partial_rotary_factor\":0.25}", want, PS_ARRAY_LEN(want), 16, 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geometry_and_flags_of_qwen3_are_read),
        cmocka_unit_test(llama_defaults_are_those_of_the_format),
        cmocka_unit_test(biases_follow_the_family),
        cmocka_unit_test(rope_reads_old_and_new_style_alike),
        cmocka_unit_test(text_config_wins_and_tying_is_read_outside_first),
        cmocka_unit_test(eos_ids_outside_the_vocabulary_are_dropped),
        cmocka_unit_test(generation_defaults_out_of_range_are_left_out),
        cmocka_unit_test(what_cannot_be_run_is_refused_by_key),
        cmocka_unit_test(a_document_that_is_no_config_is_refused),
        cmocka_unit_test(a_directory_without_config_is_refused),
        cmocka_unit_test(default_frequencies_are_the_references),
        cmocka_unit_test(linear_frequencies_are_the_references),
        cmocka_unit_test(llama3_frequencies_are_the_references),
        cmocka_unit_test(yarn_frequencies_are_the_references),
        cmocka_unit_test(partial_rotation_uses_its_own_width),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
