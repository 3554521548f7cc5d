/*
 * penstock-agent: many agent sessions with long histories that come back, and how much of what the
 * cluster has seen it computes again. Exit status 0: every turn got what it asked for (with
 * --compare: both files hold the same answers); 1: some did not.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/agent/run.h"
#include "common/log.h"

static const uint64_t file_bytes_max = UINT64_C(1) << 33;

static const struct ps_conf_table table = {
    .prog = "agent",
    .usage = "penstock-agent --vocab N [options]    penstock-agent --compare A B",
    .about =
        "Runs agent sessions: a shared system prompt, a long first prompt, then turns of answer "
        "and tool output. Reports cold and warm turns apart, and the share of avoidable "
        "prefill that was avoided.",
    .opts = bn_agent_opts,
    .n_opts = PS_ARRAY_LEN(bn_agent_opts)};

static bool read_file(const char *path, struct ps_buf *out)
{
    FILE *f = fopen(path, "re");
    char chunk[65536];
    size_t n;
    bool ok;

    while (f != NULL && out->len < file_bytes_max && (n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        ps_buf_add(out, chunk, n);
    ok = f != NULL && !ferror(f) && out->len < file_bytes_max;
    if (!ok)
        (void)fprintf(stderr, "penstock-agent: %s: %s\n", path,
                      f == NULL ? strerror(errno) : "cannot be read");
    if (f != NULL)
        (void)fclose(f);
    return ok;
}

static int compare(const struct ps_conf_list *files)
{
    struct ps_buf a = PS_BUF_INIT, b = PS_BUF_INIT;
    struct bn_difference d;
    int status = 2;

    if (files->n != 2) {
        (void)fprintf(stderr, "penstock-agent: --compare needs two files\n");
        return 2;
    }
    if (read_file(files->items[0], &a) && read_file(files->items[1], &b)) {
        bn_answers_compare(a.data, a.len, b.data, b.len, &d);
        status = d.n_turns == 0 || d.n_differ > 0 || d.n_followed > 0;
        (void)printf("%" PRIu64 " turns, %" PRIu64 " differ, %" PRIu64 " have other prompts%s%s\n",
                     d.n_turns, d.n_differ, d.n_followed, d.n_differ > 0 ? "; first: " : "",
                     d.first);
    }
    ps_buf_fini(&a);
    ps_buf_fini(&b);
    return status;
}

static double share(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0;
}

static void turns_json(struct bn_turns *t, const char *name, struct ps_buf *out)
{
    ps_buf_addf(out,
                ",\"%s\":{\"turns\":%" PRIu64 ",\"prompt_tokens\":%" PRIu64
                ",\"cached_tokens\":%" PRIu64 ",\"avoidable_tokens\":%" PRIu64
                ",\"avoided_tokens\":%" PRIu64 ",\"avoided_share\":%.6f,",
                name, t->ttft.n_seen, t->n_prompt, t->n_cached, t->n_avoidable, t->n_avoided,
                share(t->n_avoided, t->n_avoidable));
    bn_sample_json(&t->ttft, "ttft_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&t->wait, "wait_ms", out);
    ps_buf_add_byte(out, ',');
    bn_sample_json(&t->e2e, "e2e_ms", out);
    ps_buf_add_byte(out, '}');
}

static void write_json(const struct bn_agent_conf *c, struct bn_agent_result *r, struct ps_buf *out)
{
    uint64_t avoidable = r->cold.n_avoidable + r->warm.n_avoidable;
    uint64_t avoided = r->cold.n_avoided + r->warm.n_avoided;
    double wall_s = (double)r->wall_us / 1e6;

    ps_buf_addf(out,
                "{\"kind\":\"agent\",\"version\":\"%s\",\"commit\":\"%s\",\"seed\":%" PRId64
                ",\"sessions\":%" PRId64 ",\"turns\":%" PRId64 ",\"concurrency\":%" PRId64
                ",\"wall_s\":%.6f,\"history_tokens\":%" PRIu64 ",",
                ps_version(), ps_commit(), c->seed, c->sessions, c->turns, c->concurrency, wall_s,
                r->n_history);
    bn_tally_json(&r->tally, out);
    ps_buf_addf(out,
                ",\"avoidable_tokens\":%" PRIu64 ",\"avoided_tokens\":%" PRIu64
                ",\"avoided_share\":%.6f,\"prompt_tok_s\":%.3f,\"output_tok_s\":%.3f,"
                "\"client_cpu_share\":%.4f",
                avoidable, avoided, share(avoided, avoidable),
                (double)(r->cold.n_prompt + r->warm.n_prompt) / wall_s,
                (double)(r->cold.n_output + r->warm.n_output) / wall_s,
                share(r->cpu_us, r->wall_us));
    turns_json(&r->cold, "cold", out);
    turns_json(&r->warm, "warm", out);
    ps_buf_add_str(out, "}\n");
}

static void turns_row(struct bn_turns *t, const char *name, struct ps_buf *out)
{
    if (t->ttft.n_seen == 0)
        return;
    ps_buf_addf(out,
                "| %s | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %" PRIu64
                " | %.2f %% | %.2f | %.2f | %.2f |\n",
                name, t->ttft.n_seen, t->n_prompt, t->n_cached, t->n_avoidable,
                100 * share(t->n_avoided, t->n_avoidable), bn_sample_ms(&t->ttft, 0.5),
                bn_sample_ms(&t->ttft, 0.9), bn_sample_ms(&t->ttft, 0.99));
}

static void write_table(struct bn_agent_result *r, struct ps_buf *out)
{
    ps_buf_addf(out,
                "%" PRIu64 " turns, %" PRIu64 " failed, in %.2f s; histories of %" PRIu64
                " tokens; client: %.1f %% of a core\n\n"
                "| turns | n | prompt tokens | cached | avoidable | avoided | TTFT p50 ms | p90 | "
                "p99 |\n|---|---|---|---|---|---|---|---|---|\n",
                r->tally.n[BN_OK], bn_tally_failed(&r->tally), (double)r->wall_us / 1e6,
                r->n_history, 100 * share(r->cpu_us, r->wall_us));
    turns_row(&r->cold, "cold", out);
    turns_row(&r->warm, "warm", out);
    bn_tally_lines(&r->tally, out);
}

static bool write_to(const char *path, const struct ps_buf *b)
{
    if (path[0] == '\0' || bn_write_file(path, b))
        return true;
    (void)fprintf(stderr, "penstock-agent: %s cannot be written\n", path);
    return false;
}

/* Everything that the run leaves behind; false when a file could not be written. */
static bool report(const struct bn_agent_conf *conf, const struct bn_sessions *sessions,
                   struct bn_answers *answers, struct bn_agent_result *res)
{
    struct ps_buf text = PS_BUF_INIT;
    bool ok = true;

    write_table(res, &text);
    (void)fwrite(text.data, 1, text.len, stdout);
    ps_buf_clear(&text);
    write_json(conf, res, &text);
    ok &= write_to(conf->json, &text);
    if (conf->state[0] != '\0') {
        ps_buf_clear(&text);
        bn_sessions_write(sessions, &text);
        ok &= write_to(conf->state, &text);
    }
    if (conf->answers[0] != '\0') {
        ps_buf_clear(&text);
        bn_answers_write(answers, &text);
        ok &= write_to(conf->answers, &text);
    }
    ps_buf_fini(&text);
    return ok;
}

static bool resume(const struct bn_agent_conf *conf, struct bn_sessions *sessions)
{
    struct ps_buf file = PS_BUF_INIT, err = PS_BUF_INIT;
    bool ok = read_file(conf->resume, &file);

    if (ok && bn_sessions_read(sessions, file.data, file.len, &err) != BN_SESSIONS_OK) {
        (void)fprintf(stderr, "penstock-agent: %s: %s\n", conf->resume, err.data);
        ok = false;
    }
    ps_buf_fini(&file);
    ps_buf_fini(&err);
    return ok;
}

static int run(const struct bn_agent_conf *conf)
{
    const struct bn_sessions_conf sc = {.vocab = {.seed = (uint64_t)conf->seed,
                                                  .first = (uint32_t)conf->id_min,
                                                  .n = (uint32_t)conf->vocab},
                                        .n = (uint32_t)conf->sessions,
                                        .n_groups = (uint32_t)conf->groups,
                                        .n_system = (uint32_t)conf->system,
                                        .n_first = (uint32_t)conf->first,
                                        .n_tool = (uint32_t)conf->tool};
    struct bn_agent_result res;
    struct bn_sessions sessions;
    struct bn_answers answers = {0};
    int r, status = 2;

    bn_sessions_init(&sessions, &sc);
    bn_agent_result_init(&res);
    if (conf->resume[0] == '\0' || resume(conf, &sessions)) {
        r = bn_agent_run(conf, &sessions, conf->answers[0] != '\0' ? &answers : NULL, &res);
        if (r != 0)
            (void)fprintf(stderr, "penstock-agent: %s\n", bn_client_said(r));
        else if (report(conf, &sessions, &answers, &res))
            status = bn_tally_failed(&res.tally) > 0 ? 1 : 0;
    }
    bn_agent_result_fini(&res);
    bn_answers_fini(&answers);
    bn_sessions_fini(&sessions);
    return status;
}

/* Longest history any session can reach; what bounds memory and request bodies. */
static bool check(const void *conf, struct ps_buf *err)
{
    const struct bn_agent_conf *c = conf;

    if (c->compare)
        return true;
    if (c->vocab == 0 || c->id_min >= c->vocab)
        ps_buf_add_str(err,
                       "--vocab: the size of the model's vocabulary is needed, above --id-min");
    else if (c->targets.n == 0 || c->targets.n > BN_TARGETS_MAX)
        ps_buf_addf(err, "--target: 1 to %d", BN_TARGETS_MAX);
    else if (c->system + c->first + (c->tool + c->answer) * c->turns > BN_HISTORY_MAX / 2)
        ps_buf_add_str(err, "histories would be longer than this program handles");
    return err->len == 0;
}

int main(int argc, char **argv)
{
    struct ps_buf err = PS_BUF_INIT;
    struct ps_conf_list rest = {0};
    struct bn_agent_conf conf;
    int r, status = 2;

    ps_log_init("agent", PS_LOG_WARN);
    r = ps_conf_load(&table, argc, argv, &conf, &rest, check, &err);
    if (r == PS_CONF_E_DONE)
        status = 0;
    else if (r == PS_CONF_OK && conf.compare)
        status = compare(&rest);
    else if (r == PS_CONF_OK && rest.n > 0)
        ps_buf_addf(&err, "unexpected argument %s", rest.items[0]);
    else if (r == PS_CONF_OK)
        status = run(&conf);
    if (err.len > 0)
        (void)fprintf(stderr, "penstock-agent: %s\n", err.data);
    ps_buf_fini(&err);
    return status;
}
