#include "deploy/cli/demo.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "deploy/cli/chat.h"
#include "deploy/cli/conf_def.h"
#include "deploy/cli/serve.h"

enum { READY_TIMEOUT_S = 60, N_WORKERS = 2 };

static const char *const questions[] = {"What is a penstock?", "How do I add a worker?"};

/* The questions are asked from a thread, so that the main one goes on supervising. */
struct asker {
    struct cli_url url;
    struct cli_chat_conf chat;
    pthread_mutex_t lock;
    bool done, failed;
};

static void *asker_main(void *ud)
{
    struct asker *a = ud;
    bool failed = false;
    size_t i;

    for (i = 0; i < PS_ARRAY_LEN(questions) && !failed; i++) {
        (void)printf("\n> %s\n", questions[i]);
        (void)fflush(stdout);
        failed = cli_ask(&a->url, &a->chat, questions[i]) != CLI_OK;
    }
    (void)pthread_mutex_lock(&a->lock);
    a->done = true;
    a->failed = failed;
    (void)pthread_mutex_unlock(&a->lock);
    return NULL;
}

static bool asker_done(struct asker *a)
{
    bool done;

    (void)pthread_mutex_lock(&a->lock);
    done = a->done;
    (void)pthread_mutex_unlock(&a->lock);
    return done;
}

static bool wait_ready(struct cli_cluster *c, const struct cli_url *u)
{
    time_t end = time(NULL) + READY_TIMEOUT_S;
    struct ps_buf body = PS_BUF_INIT;
    uint32_t status = 0;

    while (status != 200 && time(NULL) < end && cli_cluster_step(c, 50)) {
        ps_buf_clear(&body);
        if (cli_request(u, "/ready", "", NULL, 0, 5, &status, &body, NULL, NULL) != CLI_OK)
            status = 0;
    }
    ps_buf_fini(&body);
    return status == 200;
}

int cli_demo(void)
{
    struct cli_serve_conf conf = {.model = "",
                                  .host = "127.0.0.1",
                                  .served_name = "penstock-demo",
                                  .api_key_file = "",
                                  .workers = N_WORKERS,
                                  .drain_timeout_s = 5};
    struct asker a = {
        .chat = {.model = "default", .api_key = "", .system = "", .max_tokens = 200, .seed = 1},
        .lock = PTHREAD_MUTEX_INITIALIZER};
    static const char *const quiet = "--log-level=warn";
    struct cli_cluster *c;
    pthread_t thread;
    uint16_t port;
    int status;

    conf.router_args = (struct ps_conf_list){(const char **)(uintptr_t)&quiet, 1};
    conf.worker_args = conf.router_args;
    if (cli_free_port(&port) != 0)
        return 1;
    conf.port = port;
    (void)snprintf(a.url.host, sizeof(a.url.host), "%s", conf.host);
    (void)snprintf(a.url.port, sizeof(a.url.port), "%u", (unsigned)conf.port);
    (void)printf("starting one router and %d CPU workers on the bundled model, http://%s:%s\n",
                 N_WORKERS, a.url.host, a.url.port);
    (void)fflush(stdout);
    c = cli_cluster_start(&conf);
    if (c == NULL)
        return 1;
    if (!wait_ready(c, &a.url)) {
        (void)fprintf(stderr, "the cluster did not become ready\n");
        (void)cli_cluster_stop(c);
        return 1;
    }
    (void)printf("ready: curl http://%s:%s/v1/chat/completions ...\n", a.url.host, a.url.port);
    if (pthread_create(&thread, NULL, asker_main, &a) != 0) {
        (void)cli_cluster_stop(c);
        return 1;
    }
    while (!asker_done(&a) && cli_cluster_step(c, 20)) {
    }
    status = cli_cluster_stop(c);
    (void)pthread_join(thread, NULL);
    (void)printf("\nstopped everything. Keep one running: ./penstock.sh serve   then talk to it: "
                 "./penstock.sh chat\n");
    return a.failed ? 1 : status;
}
