/*
 * penstock-load: asks a cluster for completions of exact lengths, closed or open loop, and reports
 * what a client sees. Exit status 0: every request got what it asked for; 1: some did not.
 */

#include <stdio.h>
#include <string.h>

#include "bench/load/lane.h"
#include "common/log.h"

static const struct ps_conf_table table = {
    .prog = "load",
    .usage = "penstock-load --vocab N (--requests N | --duration S | --trace FILE) [options]",
    .about = "Asks for streamed completions of random token ids and reports times, counts and "
             "errors: a table on standard output, and JSON with --json.",
    .opts = bn_load_opts,
    .n_opts = PS_ARRAY_LEN(bn_load_opts)};

static double seconds(uint64_t us)
{
    return (double)us / 1e6;
}

static double per_second(uint64_t n, const struct bn_result *r)
{
    return r->wall_us > 0 ? (double)n / seconds(r->wall_us) : 0;
}

static double cpu_share(uint64_t cpu_us, const struct bn_result *r)
{
    return r->wall_us > 0 ? (double)cpu_us / (double)r->wall_us : 0;
}

static void write_json(const struct bn_load_conf *c, struct bn_result *r, struct ps_buf *out)
{
    ps_buf_addf(out,
                "{\"kind\":\"load\",\"version\":\"%s\",\"commit\":\"%s\",\"seed\":%lld,"
                "\"mode\":\"%s\",\"concurrency\":%lld,\"wall_s\":%.6f,",
                ps_version(), ps_commit(), (long long)c->seed,
                c->trace[0] != '\0' ? "trace"
                : c->rate > 0       ? "poisson"
                                    : "closed",
                (long long)c->concurrency, seconds(r->wall_us));
    bn_tally_json(&r->tally, out);
    ps_buf_addf(out,
                ",\"tokens\":{\"prompt\":%llu,\"output\":%llu,\"cached\":%llu},"
                "\"rates\":{\"requests_s\":%.3f,\"output_tok_s\":%.3f,\"total_tok_s\":%.3f},",
                (unsigned long long)r->n_prompt, (unsigned long long)r->n_output,
                (unsigned long long)r->n_cached, per_second(r->tally.n[BN_OK], r),
                per_second(r->n_output, r), per_second(r->n_prompt + r->n_output, r));
    bn_sample_json(&r->ttft, "ttft_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&r->gap, "gap_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&r->tpot, "tpot_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&r->e2e, "e2e_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&r->late, "late_ms", out);
    ps_buf_addf(out,
                ",\"goodput\":{\"slo_ttft_ms\":%.3f,\"slo_tpot_ms\":%.3f,\"requests\":%llu,"
                "\"requests_s\":%.3f},\"client\":{\"threads\":%lld,\"cpu_s\":%.3f,"
                "\"cpu_share\":%.4f,\"cpu_share_busiest\":%.4f}}\n",
                c->slo_ttft_ms, c->slo_tpot_ms, (unsigned long long)r->n_good,
                per_second(r->n_good, r), (long long)c->threads, seconds(r->cpu_us),
                cpu_share(r->cpu_us, r), cpu_share(r->cpu_us_max, r));
}

static void write_table(const struct bn_load_conf *c, struct bn_result *r, struct ps_buf *out)
{
    ps_buf_addf(out,
                "%llu requests, %llu failed, in %.2f s: %.1f requests/s, %.1f output tokens/s, "
                "%.1f tokens/s, %.1f %% of prompt tokens cached\n\n"
                "| ms | mean | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|\n",
                (unsigned long long)r->tally.n[BN_OK],
                (unsigned long long)bn_tally_failed(&r->tally), seconds(r->wall_us),
                per_second(r->tally.n[BN_OK], r), per_second(r->n_output, r),
                per_second(r->n_prompt + r->n_output, r),
                r->n_prompt > 0 ? 100.0 * (double)r->n_cached / (double)r->n_prompt : 0.0);
    bn_sample_row(&r->ttft, "time to first token", out);
    bn_sample_row(&r->gap, "between events", out);
    bn_sample_row(&r->tpot, "time per token", out);
    bn_sample_row(&r->e2e, "end to end", out);
    if (r->late.n_seen > 0)
        bn_sample_row(&r->late, "sent late", out);
    ps_buf_addf(out,
                "\n%.1f requests/s within %.0f ms to the first token and %.1f ms a token; client: "
                "%.1f %% of a core, busiest thread %.1f %%\n",
                per_second(r->n_good, r), c->slo_ttft_ms, c->slo_tpot_ms,
                100 * cpu_share(r->cpu_us, r), 100 * cpu_share(r->cpu_us_max, r));
    bn_tally_lines(&r->tally, out);
}

static int run(const struct bn_load_conf *conf, const struct bn_plan *plan)
{
    struct ps_buf text = PS_BUF_INIT;
    struct bn_result res;
    int r = 0, status = 0;

    bn_result_init(&res);
    if (conf->warmup > 0) {
        r = bn_lanes_run(plan, true, &res);
        if (r == 0 && bn_tally_failed(&res.tally) > 0)
            (void)fprintf(stderr, "penstock-load: %llu requests of the warm-up failed\n",
                          (unsigned long long)bn_tally_failed(&res.tally));
        status = bn_tally_failed(&res.tally) > 0;
        bn_result_fini(&res);
        bn_result_init(&res);
    }
    if (r == 0)
        r = bn_lanes_run(plan, false, &res);
    if (r != 0) {
        (void)fprintf(stderr, "penstock-load: %s\n", bn_client_said(r));
        bn_result_fini(&res);
        return 2;
    }
    write_table(conf, &res, &text);
    (void)fwrite(text.data, 1, text.len, stdout);
    ps_buf_clear(&text);
    write_json(conf, &res, &text);
    if (conf->json[0] != '\0' && !bn_write_file(conf->json, &text)) {
        (void)fprintf(stderr, "penstock-load: %s cannot be written\n", conf->json);
        status = 2;
    }
    if (bn_tally_failed(&res.tally) > 0 || res.tally.n[BN_OK] == 0)
        status = status == 2 ? 2 : 1;
    ps_buf_fini(&text);
    bn_result_fini(&res);
    return status;
}

int main(int argc, char **argv)
{
    struct ps_buf err = PS_BUF_INIT;
    struct bn_load_conf conf;
    struct bn_plan *plan = NULL;
    int r, status = 2;

    ps_log_init("load", PS_LOG_WARN);
    r = ps_conf_load(&table, argc, argv, &conf, NULL, NULL, &err);
    if (r == PS_CONF_E_DONE) {
        status = 0;
    } else if (r == PS_CONF_OK && conf.targets.n > BN_TARGETS_MAX) {
        ps_buf_addf(&err, "--target: at most %d", BN_TARGETS_MAX);
    } else if (r == PS_CONF_OK && bn_plan_create(&plan, &conf, &err) == BN_PLAN_OK) {
        status = run(&conf, plan);
    }
    if (err.len > 0)
        (void)fprintf(stderr, "penstock-load: %s\n", err.data);
    bn_plan_destroy(plan);
    ps_buf_fini(&err);
    return status;
}
