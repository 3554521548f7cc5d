#include "worker/model/model.h"

#include "common/test.h"
#include "worker/model/tiny.h"

#include <stdlib.h>

static char dir[] = "/tmp/penstock-model-XXXXXX";

static int load(struct wk_model **out, struct ps_buf *err)
{
    ps_buf_clear(err);
    return wk_model_load(out, dir, err);
}

static void must_refuse(const char *text)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_model *m = NULL;

    if (load(&m, &err) != WK_MODEL_E_BAD)
        fail_msg("accepted; expected '%s'", text);
    if (strstr(err.data, text) == NULL || strchr(err.data, '\n') != NULL)
        fail_msg("expected '%s' in '%s'", text, err.data);
    assert_null(m);
    ps_buf_fini(&err);
}

static struct wk_model *must_load(void)
{
    struct ps_buf err = PS_BUF_INIT;
    struct wk_model *m = NULL;

    if (load(&m, &err) != WK_MODEL_OK)
        fail_msg("refused: %s", err.data);
    ps_buf_fini(&err);
    return m;
}

static void write_tokenizer(const char *text)
{
    int fd = tiny_create(dir, "tokenizer.json");

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

static void every_tensor_must_be_there(void **state)
{
    static const char *const names[] = {"model.embed_tokens.weight",
                                        "model.norm.weight",
                                        "model.layers.1.self_attn.k_proj.weight",
                                        "model.layers.0.self_attn.q_norm.weight",
                                        "model.layers.1.post_attention_layernorm.weight",
                                        "model.layers.0.mlp.up_proj.weight"};
    struct tiny t = TINY_QWEN3;
    char text[160];

    (void)state;
    for (size_t i = 0; i < PS_ARRAY_LEN(names); i++) {
        t.skip = names[i];
        tiny_write(dir, &t);
        (void)snprintf(text, sizeof(text), "model.safetensors: tensor %s is missing", names[i]);
        must_refuse(text);
    }
    t.skip = NULL;
    t.tied = false;
    tiny_write(dir, &t);
    wk_model_destroy(must_load());
    t.tied = true;
    tiny_write_config(dir, &t); /* a head although the embedding serves: not used, not an error */
    wk_model_destroy(must_load());
    tiny_write(dir, &t);
    t.tied = false;
    tiny_write_config(dir, &t);
    must_refuse("lm_head.weight is missing");
}

static void shapes_must_be_those_of_the_config(void **state)
{
    struct tiny t = TINY_QWEN3, lie = t;

    (void)state;
    tiny_write(dir, &t);
    lie.inter++;
    tiny_write_config(dir, &lie);
    must_refuse("model.layers.0.mlp.gate_proj.weight has another shape");
    lie = t;
    lie.n_vocab--;
    tiny_write_config(dir, &lie);
    must_refuse("model.embed_tokens.weight has another shape");
    lie = t;
    lie.n_layer++;
    tiny_write_config(dir, &lie);
    must_refuse("model.layers.2.input_layernorm.weight is missing");
    lie = t;
    lie.d_head = 48;
    lie.n_head = 2;
    lie.n_kv_head = 1;
    tiny_write_config(dir, &lie);
    must_refuse("self_attn.q_norm.weight has another shape");
    lie = t;
    lie.n_layer--; /* what the file holds beyond the config is not used */
    tiny_write_config(dir, &lie);
    wk_model_destroy(must_load());
}

static void the_vocabulary_is_the_smaller_of_model_and_tokenizer(void **state)
{
    struct tiny t = TINY_QWEN3;
    struct wk_model *m;

    (void)state;
    tiny_write(dir, &t);
    m = must_load();
    assert_int_equal(wk_model_n_vocab_valid(m), 150);
    wk_model_destroy(m);
    write_tokenizer("{\"model\":{\"vocab\":{\"a\":0,\"b\":99}}}");
    m = must_load();
    assert_int_equal(wk_model_n_vocab_valid(m), 100);
    wk_model_destroy(m);
    write_tokenizer("{\"model\":{\"vocab\":{\"a\":0,\"b\":9999}}}");
    m = must_load();
    assert_int_equal(wk_model_n_vocab_valid(m), 150);
    wk_model_destroy(m);
    write_tokenizer("{");
    must_refuse("tokenizer.json: not valid JSON");
    write_tokenizer("{\"model\":{\"vocab\":{\"a\":0,\"b\":149}}}");
}

static void one_host_packs_the_weights_once(void **state)
{
    struct tiny t = TINY_QWEN3;
    struct wk_model *a, *b, *c;

    (void)state;
    t.dtype = KN_BF16;
    t.seed = 5;
    tiny_write(dir, &t);
    a = must_load();
    b = must_load();
    assert_true(!wk_model_is_shared(a) && wk_model_is_shared(b));
    assert_true(wk_model_weights_digest(a) == wk_model_weights_digest(b));
    assert_int_equal(wk_model_dtype(a), KN_BF16);
    t.seed = 6;
    tiny_write(dir, &t); /* other bytes, also when the name and the size are the same */
    c = must_load();
    assert_false(wk_model_is_shared(c));
    assert_true(wk_model_weights_digest(c) != wk_model_weights_digest(a));
    wk_model_destroy(a);
    wk_model_destroy(b);
    wk_model_destroy(c);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    tiny_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_must_be_there),
        cmocka_unit_test(shapes_must_be_those_of_the_config),
        cmocka_unit_test(the_vocabulary_is_the_smaller_of_model_and_tokenizer),
        cmocka_unit_test(one_host_packs_the_weights_once),
    };

    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
