#include "router/stats_kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/fleet/fleet.h"

/* An invented fleet: a worker with tiers, one that has died, one that has not said anything yet. */

enum { N_SLOTS = 3 };

static struct rt_worker workers[N_SLOTS];
static struct pb_kv_load stores[N_SLOTS];

uint32_t rt_fleet_n_slots(const struct rt_fleet *f)
{
    (void)f;
    return N_SLOTS;
}

bool rt_fleet_worker(const struct rt_fleet *f, uint32_t slot, struct rt_worker *out)
{
    (void)f;
    *out = workers[slot];
    return true;
}

bool rt_fleet_kv(const struct rt_fleet *f, uint32_t slot, struct pb_kv_load *out)
{
    (void)f;
    *out = stores[slot];
    return true;
}

static int set_up(void **state)
{
    (void)state;
    memset(workers, 0, sizeof(workers));
    memset(stores, 0, sizeof(stores));
    for (uint32_t i = 0; i < N_SLOTS; i++)
        workers[i].slot = i;
    workers[0].state = RT_W_LIVE;
    workers[0].load = (struct pb_load){
        .n_group = 2,
        .group = {{.n_total = 40, .n_free = 1, .n_evictable = 2, .n_pinned = 37, .n_growth = 5},
                  {.n_total = 7}},
        .cached_tokens = 160,
        .resume_tokens = 32};
    stores[0] = (struct pb_kv_load){
        .n_tier = 3,
        .tier =
            {{.id = PB_KV_T0, .is_open = true, .pages = 40},
             {.id = PB_KV_T2, .is_open = false, .pages = 9000, .n_bad = 3, .fetched_tokens = 64},
             {.id = PB_KV_PEER, .is_open = true, .useful_bytes = 1ULL << 33}},
        .n_fetch = 4,
        .fetch_wait_us = 1500000};
    workers[1].state = RT_W_DEAD;
    stores[1] = stores[0];
    workers[2].state = RT_W_SUSPECT;
    return 0;
}

static void assert_line(const struct ps_buf *b, const char *line)
{
    const char *at = strstr(b->data, line);

    if (at == NULL || (at > b->data && at[-1] != '\n'))
        fail_msg("no line %s in\n%s", line, b->data);
}

static void every_worker_that_lives_has_its_series(void **state)
{
    struct ps_buf b = PS_BUF_INIT;

    (void)state;
    rt_stats_kv_metrics(NULL, "model_name=\"m\"", &b);
    assert_line(&b, "# TYPE penstock_kv_tier_fetched_tokens_total counter\n");
    assert_line(
        &b,
        "penstock_kv_tier_fetched_tokens_total{model_name=\"m\",worker=\"0\",tier=\"t2\"} 64\n");
    assert_line(&b, "penstock_kv_tier_open{model_name=\"m\",worker=\"0\",tier=\"t2\"} 0\n");
    assert_line(&b, "penstock_kv_tier_open{model_name=\"m\",worker=\"0\",tier=\"peer\"} 1\n");
    assert_line(&b, "# TYPE penstock_kv_tier_pages gauge\n");
    assert_line(&b, "penstock_kv_tier_pages{model_name=\"m\",worker=\"0\",tier=\"t2\"} 9000\n");
    assert_line(&b,
                "penstock_kv_tier_bad_pages_total{model_name=\"m\",worker=\"0\",tier=\"t2\"} 3\n");
    assert_line(&b,
                "penstock_kv_tier_useful_bytes_total{model_name=\"m\",worker=\"0\",tier=\"peer\"} "
                "8589934592\n");
    assert_line(&b,
                "penstock_kv_group_growth_items{model_name=\"m\",worker=\"0\",group=\"0\"} 5\n");
    assert_line(&b, "penstock_kv_group_items{model_name=\"m\",worker=\"0\",group=\"1\"} 7\n");
    assert_line(&b,
                "penstock_kv_fetch_wait_seconds_total{model_name=\"m\",worker=\"0\"} 1.500000\n");
    assert_line(&b, "penstock_worker_resume_tokens_total{model_name=\"m\",worker=\"0\"} 32\n");
    assert_line(&b, "penstock_kv_fetches_total{model_name=\"m\",worker=\"2\"} 0\n");
    assert_null(strstr(b.data, "worker=\"1\""));
    assert_null(strstr(b.data, "tier=\"t1\"")); /* it has none */
    ps_buf_fini(&b);
}

/* A text format where a family is told twice, or a series is outside its family, is refused. */
static void every_family_is_told_once_before_its_series(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    char type[128] = "";

    (void)state;
    rt_stats_kv_metrics(NULL, "x=\"y\"", &b);
    for (char *line = b.data, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        if (strncmp(line, "# TYPE ", 7) == 0) {
            size_t n = strcspn(line + 7, " ");

            assert_true(n < sizeof(type) - 1);
            memcpy(type, line + 7, n);
            type[n] = '{';
            type[n + 1] = '\0';
            assert_int_equal(strstr(line, "counter") != NULL, strstr(type, "_total{") != NULL);
            *end = '\n';
            assert_null(strstr(end + 1, line + 7));
        } else if (strncmp(line, "# HELP ", 7) != 0) {
            assert_true(type[0] != '\0' && strncmp(line, type, strlen(type)) == 0);
        }
    }
    ps_buf_fini(&b);
}

static void json_has_groups_and_tiers(void **state)
{
    struct ps_buf b = PS_BUF_INIT;
    const char *text;

    (void)state;
    ps_buf_add_str(&b, "{\"slot\":0");
    rt_stats_kv_json(NULL, &workers[0], &b);
    ps_buf_add_byte(&b, '}');
    text = b.data;
    assert_non_null(strstr(text, "\"kv_groups\":[{\"group\":0,\"n_total\":40,\"n_free\":1,"
                                 "\"n_evictable\":2,\"n_pinned\":37,\"n_growth\":5,"));
    assert_non_null(strstr(text, "},{\"group\":1,\"n_total\":7,"));
    assert_non_null(strstr(text, "\"kv_tiers\":[{\"tier\":\"t0\",\"open\":true,\"pages\":40,"));
    assert_non_null(strstr(text, "},{\"tier\":\"t2\",\"open\":false,\"pages\":9000,"));
    assert_non_null(strstr(text, "\"n_fetch\":4,"));
    assert_non_null(strstr(text, "\"fetch_wait_us\":1500000,"));
    assert_non_null(strstr(text, "\"resume_tokens\":32,"));
    ps_buf_clear(&b);
    rt_stats_kv_json(NULL, &workers[2], &b);
    assert_non_null(strstr(b.data, "\"kv_groups\":[],\"kv_tiers\":[],"));
    ps_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_worker_that_lives_has_its_series, set_up),
        cmocka_unit_test_setup(every_family_is_told_once_before_its_series, set_up),
        cmocka_unit_test_setup(json_has_groups_and_tiers, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
