#include "bench/load/prompt.h"

#include <string.h>

#include "common/hash.h"
#include "common/json/json.h"
#include "common/rng.h"

uint64_t bn_stream_seed(uint64_t seed, enum bn_stream kind, uint64_t number)
{
    const uint64_t key[2] = {(uint64_t)kind, number};

    return ps_hash64(key, sizeof(key), seed);
}

void bn_draw_ids(const struct bn_vocab *v, enum bn_stream kind, uint64_t number, uint32_t *out,
                 size_t n)
{
    struct ps_rng rng;

    PS_ASSERT(v->first < v->n);
    ps_rng_seed(&rng, bn_stream_seed(v->seed, kind, number));
    for (size_t i = 0; i < n; i++)
        out[i] = v->first + (uint32_t)ps_rng_below(&rng, v->n - v->first);
}

static void add_u32(struct ps_buf *out, uint32_t v)
{
    char digits[10];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    ps_buf_add(out, digits + n, sizeof(digits) - n);
}

void bn_write_body(struct ps_buf *out, const struct bn_ask *a)
{
    ps_buf_clear(out);
    ps_buf_reserve(out, a->n_ids * 7 + 512);
    ps_buf_add_str(out, "{\"model\":");
    ps_json_add_str(out, a->model, strlen(a->model));
    ps_buf_addf(out,
                ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":%u,"
                "\"ignore_eos\":true,\"temperature\":%.6g,\"seed\":%llu",
                a->n_output, a->temperature, (unsigned long long)(a->seed & INT32_MAX));
    if (a->with_ids)
        ps_buf_add_str(out, ",\"return_token_ids\":true");
    ps_buf_add_str(out, ",\"prompt\":[");
    for (size_t i = 0; i < a->n_ids; i++) {
        if (i > 0)
            ps_buf_add_byte(out, ',');
        add_u32(out, a->ids[i]);
    }
    ps_buf_add_str(out, "]}");
}
