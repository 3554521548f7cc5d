#include "deploy/cli/serve.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rng.h"
#include "deploy/cli/conf_def.h"
#include "deploy/cli/path.h"

enum { MAX_ARGS = 64, BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 5000, YOUNG_MS = 10000 };
/* A child that never lives long is a configuration error, not bad luck. */
enum { GIVE_UP_DEATHS = 6 };

struct child {
    char name[24];
    char *argv[MAX_ARGS];
    pid_t pid; /* 0: not running */
    uint64_t started_ms, restart_at_ms;
    uint32_t backoff_ms, n_young_deaths;
};

struct cli_cluster {
    struct child *children; /* [0] is the router */
    uint32_t n_children;
    int64_t drain_timeout_s;
    int sig_fd;
    sigset_t old_mask;
    uint32_t n_stop_signals;
    bool gave_up;
};

static uint64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int cli_free_port(uint16_t *out)
{
    PS_AUTO(ps_close_fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        return PS_FAULT(-errno);
    *out = ntohs(a.sin_port);
    return 0;
}

static void add_arg(struct child *c, const char *flag, const char *value)
{
    uint32_t n = 0;

    while (c->argv[n] != NULL)
        n++;
    PS_ASSERT(n + 3 < MAX_ARGS);
    c->argv[n] = ps_strdup(flag);
    if (value != NULL)
        c->argv[n + 1] = ps_strdup(value);
}

static void add_int(struct child *c, const char *flag, int64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%ld", (long)value);
    add_arg(c, flag, text);
}

static void add_list(struct child *c, const struct ps_conf_list *l)
{
    uint32_t i;

    for (i = 0; i < l->n && i < MAX_ARGS / 2; i++)
        add_arg(c, l->items[i], NULL);
}

/* Options of a worker; "{index}" stands for its number, so that each can have a file of its own. */
static void add_worker_list(struct child *c, const struct ps_conf_list *l, uint32_t index)
{
    uint32_t i;

    for (i = 0; i < l->n && i < MAX_ARGS / 2; i++) {
        const char *at = strstr(l->items[i], "{index}");
        struct ps_buf text = PS_BUF_INIT;

        if (at == NULL) {
            add_arg(c, l->items[i], NULL);
            continue;
        }
        ps_buf_addf(&text, "%.*s%u%s", (int)(at - l->items[i]), l->items[i], index,
                    at + strlen("{index}"));
        add_arg(c, text.data, NULL);
        ps_buf_fini(&text);
    }
}

static void router_args(struct child *c, const struct cli_serve_conf *conf, const char *model,
                        uint16_t tok_port)
{
    (void)snprintf(c->name, sizeof(c->name), "router");
    add_arg(c, cli_program_path("penstock-router"), NULL);
    add_arg(c, "--model", model);
    add_arg(c, "--host", conf->host);
    add_int(c, "--port", conf->port);
    add_arg(c, "--worker-host", "127.0.0.1");
    add_int(c, "--worker-port", tok_port);
    add_int(c, "--drain-grace", 0); /* nobody balances load in front of a cluster on one host */
    add_int(c, "--drain-timeout", conf->drain_timeout_s);
    if (conf->served_name[0] != '\0')
        add_arg(c, "--served-model-name", conf->served_name);
    if (conf->api_key_file[0] != '\0')
        add_arg(c, "--api-key-file", conf->api_key_file);
    if (conf->insecure_no_auth)
        add_arg(c, "--insecure-no-auth", NULL);
    add_list(c, &conf->router_args);
}

static void worker_args(struct child *c, const struct cli_serve_conf *conf, const char *model,
                        uint16_t tok_port, uint32_t index)
{
    char text[64];
    uint64_t uid;

    (void)snprintf(c->name, sizeof(c->name), "worker-%u", index);
    add_arg(c, cli_program_path("penstock-worker"), NULL);
    add_arg(c, "--model", model);
    (void)snprintf(text, sizeof(text), "tcp://127.0.0.1:%u", tok_port);
    add_arg(c, "--router", text);
    /* The same identity after each restart, so that placement keeps sending it its prefixes. */
    ps_random_bytes(&uid, sizeof(uid));
    (void)snprintf(text, sizeof(text), "%016lx", (unsigned long)uid);
    add_arg(c, "--uid", text);
    add_int(c, "--workers-on-host", conf->workers);
    add_int(c, "--threads", conf->threads);
    add_int(c, "--drain-timeout", conf->drain_timeout_s);
    if (conf->served_name[0] != '\0')
        add_arg(c, "--served-model-name", conf->served_name);
    add_worker_list(c, &conf->worker_args, index);
}

static void start_child(struct cli_cluster *c, struct child *ch)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0) {
        /* Own process group: a terminal's Ctrl-C reaches this process only, which then drains in order. */
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)sigprocmask(SIG_SETMASK, &c->old_mask, NULL);
        if (getppid() != parent) /* it died before the line above */
            _exit(1);
        (void)execv(ch->argv[0], ch->argv);
        _exit(127);
    }
    ch->started_ms = now_ms();
    ch->pid = pid > 0 ? pid : 0;
    if (pid < 0)
        ch->restart_at_ms = ch->started_ms + BACKOFF_MAX_MS;
    ps_info("started", "child=%s pid=%d", ch->name, (int)ch->pid);
}

static void on_death(struct cli_cluster *c, struct child *ch, int status)
{
    uint64_t now = now_ms();
    bool young = now - ch->started_ms < YOUNG_MS;

    ch->pid = 0;
    ch->n_young_deaths = young ? ch->n_young_deaths + 1 : 0;
    ch->backoff_ms = young && ch->backoff_ms != 0 ? ps_min_u32(2 * ch->backoff_ms, BACKOFF_MAX_MS)
                                                  : BACKOFF_MIN_MS;
    ch->restart_at_ms = now + ch->backoff_ms;
    if (c->n_stop_signals > 0)
        return;
    if (WIFSIGNALED(status))
        ps_warn("child died; it will be started again", "child=%s signal=%d", ch->name,
                WTERMSIG(status));
    else
        ps_warn("child ended; it will be started again", "child=%s status=%d", ch->name,
                WEXITSTATUS(status));
    if (ch->n_young_deaths >= GIVE_UP_DEATHS) {
        ps_error("child cannot be kept alive; giving up", "child=%s", ch->name);
        c->gave_up = true;
    }
}

static void reap(struct cli_cluster *c)
{
    uint32_t i;
    int status;

    for (i = 0; i < c->n_children; i++) {
        struct child *ch = &c->children[i];

        if (ch->pid > 0 && waitpid(ch->pid, &status, WNOHANG) == ch->pid)
            on_death(c, ch, status);
    }
}

struct cli_cluster *cli_cluster_start(const struct cli_serve_conf *given)
{
    struct cli_cluster *c = ps_calloc(1, sizeof(*c));
    struct cli_serve_conf own = *given, *conf = &own;
    const char *model = conf->model[0] != '\0' ? conf->model : cli_demo_model_path();
    uint16_t tok_port = 0;
    sigset_t mask;
    uint32_t i;

    if (conf->model[0] == '\0' && conf->served_name[0] == '\0')
        conf->served_name = "penstock-demo";
    c->n_children = (uint32_t)conf->workers + 1;
    c->children = ps_calloc(c->n_children, sizeof(c->children[0]));
    c->drain_timeout_s = conf->drain_timeout_s;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGINT);
    (void)sigaddset(&mask, SIGTERM);
    (void)sigaddset(&mask, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &mask, &c->old_mask);
    c->sig_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (c->sig_fd < 0 || cli_free_port(&tok_port) < 0) {
        ps_error("cannot start", "errno=%d", errno);
        (void)cli_cluster_stop(c);
        return NULL;
    }
    router_args(&c->children[0], conf, model, tok_port);
    for (i = 1; i < c->n_children; i++)
        worker_args(&c->children[i], conf, model, tok_port, i - 1);
    for (i = 0; i < c->n_children; i++)
        start_child(c, &c->children[i]);
    return c;
}

static void read_signals(struct cli_cluster *c)
{
    struct signalfd_siginfo s;

    while (read(c->sig_fd, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
        if (s.ssi_signo != SIGCHLD)
            c->n_stop_signals++;
    }
}

static void wait_signals(struct cli_cluster *c, int wait_ms)
{
    struct pollfd p = {.fd = c->sig_fd, .events = POLLIN};

    (void)poll(&p, 1, wait_ms);
    read_signals(c);
    reap(c);
}

bool cli_cluster_step(struct cli_cluster *c, int wait_ms)
{
    uint64_t now = now_ms();
    uint32_t i;

    for (i = 0; i < c->n_children; i++) {
        struct child *ch = &c->children[i];

        if (ch->pid == 0 && now >= ch->restart_at_ms)
            start_child(c, ch);
        else if (ch->pid == 0)
            wait_ms = (int)ps_min_u64((uint64_t)wait_ms, ch->restart_at_ms - now);
    }
    wait_signals(c, wait_ms);
    return c->n_stop_signals == 0 && !c->gave_up;
}

int cli_cluster_run(struct cli_cluster *c)
{
    while (cli_cluster_step(c, 1000)) {
    }
    return cli_cluster_stop(c);
}

static bool any_alive(const struct cli_cluster *c, uint32_t first, uint32_t end)
{
    uint32_t i;

    for (i = first; i < end; i++) {
        if (c->children[i].pid > 0)
            return true;
    }
    return false;
}

static void signal_range(struct cli_cluster *c, uint32_t first, uint32_t end, int signo)
{
    uint32_t i;

    for (i = first; i < end; i++) {
        if (c->children[i].pid > 0)
            (void)kill(c->children[i].pid, signo);
    }
}

/* Asks children [first, end) to finish; kills what is left at the deadline or after a second signal. */
static bool drain_range(struct cli_cluster *c, uint32_t first, uint32_t end, uint64_t deadline_ms)
{
    uint32_t signals = c->n_stop_signals > 0 ? c->n_stop_signals : 1;
    bool clean = true;

    c->n_stop_signals = signals;
    signal_range(c, first, end, SIGTERM);
    while (any_alive(c, first, end)) {
        if (now_ms() >= deadline_ms || c->n_stop_signals > signals) {
            signal_range(c, first, end, SIGKILL);
            clean = false;
            deadline_ms = UINT64_MAX; /* the kernel ends them now; wait for that */
            signals = UINT32_MAX;
        }
        wait_signals(c, 100);
    }
    return clean;
}

int cli_cluster_stop(struct cli_cluster *c)
{
    /* Children cut what is still running at their own drain timeout; the margin lets them say so. */
    uint64_t deadline = now_ms() + (uint64_t)c->drain_timeout_s * 1000 + 5000;
    bool clean;
    uint32_t i, k;

    ps_info("draining", "timeout_s=%ld", (long)c->drain_timeout_s);
    clean = drain_range(c, 0, 1, deadline);
    clean = drain_range(c, 1, c->n_children, deadline) && clean;
    for (i = 0; i < c->n_children; i++) {
        for (k = 0; k < MAX_ARGS && c->children[i].argv[k] != NULL; k++)
            ps_free(c->children[i].argv[k]);
    }
    if (c->sig_fd >= 0)
        (void)close(c->sig_fd);
    (void)sigprocmask(SIG_SETMASK, &c->old_mask, NULL);
    clean = clean && !c->gave_up;
    ps_free(c->children);
    ps_free(c);
    return clean ? 0 : 1;
}
