#include "deploy/cli/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json/json.h"
#include "deploy/cli/conf_def.h"

enum { ANSWER_TIMEOUT_S = 600 };

struct talk {
    struct ps_buf messages; /* JSON array elements so far, without brackets */
    struct ps_buf event;    /* an unfinished line of the stream */
    struct ps_buf answer;   /* text of the answer being streamed */
    struct ps_buf problem;  /* an error event, or the body of an error answer */
};

static const struct ps_json_limits json_limits = {.max_depth = 32, .max_values = 100000};

static void add_message(struct talk *t, const char *role, const char *text, size_t len)
{
    ps_buf_addf(&t->messages, "%s{\"role\":\"%s\",\"content\":", t->messages.len > 0 ? "," : "",
                role);
    ps_json_add_str(&t->messages, text, len);
    ps_buf_add_byte(&t->messages, '}');
}

static const struct ps_json *dig(const struct ps_json *v, const char *key)
{
    return v != NULL && ps_json_type(v) == PS_JSON_OBJ ? ps_json_get(v, key) : NULL;
}

/* One `data:` payload. */
static void on_event(struct talk *t, const char *json, size_t len)
{
    const struct ps_json *root, *choices, *text, *error;
    struct ps_json_doc *doc;
    size_t off, n;
    const char *s;

    if (ps_json_parse(&doc, json, len, &json_limits, &off) != PS_JSON_OK)
        return; /* [DONE] */
    root = ps_json_root(doc);
    error = dig(dig(root, "error"), "message");
    if (error != NULL && ps_json_type(error) == PS_JSON_STR) {
        s = ps_json_str(error, &n);
        ps_buf_add(&t->problem, s, n);
    }
    choices = dig(root, "choices");
    if (choices != NULL && ps_json_type(choices) == PS_JSON_ARR && ps_json_n(choices) > 0) {
        text = dig(dig(ps_json_at(choices, 0), "delta"), "content");
        if (text != NULL && ps_json_type(text) == PS_JSON_STR) {
            s = ps_json_str(text, &n);
            ps_buf_add(&t->answer, s, n);
            (void)fwrite(s, 1, n, stdout);
            (void)fflush(stdout);
        }
    }
    ps_json_free(doc);
}

static bool on_data(const char *p, size_t n, void *ud)
{
    struct talk *t = ud;
    char *nl;

    ps_buf_add(&t->event, p, n);
    while (t->event.len > 0 && (nl = memchr(t->event.data, '\n', t->event.len)) != NULL) {
        size_t line = (size_t)(nl - t->event.data);

        if (line > 6 && memcmp(t->event.data, "data: ", 6) == 0)
            on_event(t, t->event.data + 6, line - 6);
        else if (line > 0 && t->event.data[0] == '{')
            on_event(t, t->event.data, line);
        ps_buf_consume(&t->event, line + 1);
    }
    return true;
}

static int ask(struct talk *t, const struct cli_url *u, const struct cli_chat_conf *conf)
{
    struct ps_buf body = PS_BUF_INIT;
    uint32_t status = 0;
    int r;

    ps_buf_add_str(&body, "{\"model\":");
    ps_json_add_str(&body, conf->model, strlen(conf->model));
    ps_buf_addf(&body, ",\"stream\":true,\"max_tokens\":%ld,\"seed\":%ld,\"temperature\":",
                (long)conf->max_tokens, (long)conf->seed);
    ps_json_add_double(&body, conf->temperature);
    ps_buf_addf(&body, ",\"messages\":[%.*s]}", (int)t->messages.len, t->messages.data);
    ps_buf_clear(&t->answer);
    ps_buf_clear(&t->problem);
    ps_buf_clear(&t->event);
    r = cli_request(u, "/v1/chat/completions", conf->api_key, body.data, body.len, ANSWER_TIMEOUT_S,
                    &status, NULL, on_data, t);
    if (t->event.len > 0) /* an error answer is one JSON object without a line end */
        on_event(t, t->event.data, t->event.len);
    (void)fputc('\n', stdout);
    if (r == CLI_E_CONNECT)
        (void)fprintf(stderr,
                      "nobody listens at http://%s:%s; start a cluster with: ./penstock.sh serve\n",
                      u->host, u->port);
    else if (r != CLI_OK)
        (void)fprintf(stderr, "the answer broke off\n");
    else if (status != 200 || t->problem.len > 0)
        (void)fprintf(stderr, "refused (%u): %s\n", status,
                      t->problem.len > 0 ? t->problem.data : "no reason given");
    if (r == CLI_OK && (status != 200 || t->problem.len > 0))
        r = CLI_E_ANSWER;
    ps_buf_fini(&body);
    return r;
}

static void talk_fini(struct talk *t)
{
    ps_buf_fini(&t->messages);
    ps_buf_fini(&t->event);
    ps_buf_fini(&t->answer);
    ps_buf_fini(&t->problem);
}

int cli_ask(const struct cli_url *u, const struct cli_chat_conf *conf, const char *question)
{
    struct talk t = {0};
    int r;

    if (conf->system[0] != '\0')
        add_message(&t, "system", conf->system, strlen(conf->system));
    add_message(&t, "user", question, strlen(question));
    r = ask(&t, u, conf);
    talk_fini(&t);
    return r;
}

int cli_chat(const struct cli_chat_conf *conf)
{
    bool prompt = isatty(STDIN_FILENO) != 0;
    struct talk t = {0};
    struct cli_url u;
    char *line = NULL;
    size_t cap = 0;
    int status = 0;

    if (cli_url_parse(&u, conf->url) != CLI_OK) {
        (void)fprintf(stderr, "--url: '%s' is not http://host:port\n", conf->url);
        return 2;
    }
    if (conf->system[0] != '\0')
        add_message(&t, "system", conf->system, strlen(conf->system));
    for (;;) {
        size_t kept = t.messages.len;
        ssize_t n;

        if (prompt)
            (void)fputs("> ", stdout), (void)fflush(stdout);
        n = getline(&line, &cap, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (n == 0)
            continue;
        add_message(&t, "user", line, (size_t)n);
        if (ask(&t, &u, conf) == CLI_OK) {
            add_message(&t, "assistant", t.answer.data != NULL ? t.answer.data : "", t.answer.len);
            continue;
        }
        ps_buf_truncate(&t.messages, kept); /* the failed turn is not part of the talk */
        status = 1;
        if (!prompt)
            break;
    }
    free(line);
    talk_fini(&t);
    return status;
}
