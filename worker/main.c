/*
 * penstock-worker: loads a model, joins routers, runs the scheduler until it is told to leave.
 */

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/conf_def.h"
#include "worker/exec/exec_dev.h"
#include "worker/host.h"
#include "worker/identity.h"
#include "worker/sched/sched.h"

enum {
    STRIDE_TOKENS_MIN = 64, /* routers index at least this many tokens at once */
};

/* A pool must hold more than one short request to be worth starting. */
enum { PAGES_MIN = 4 };

struct worker {
    struct wk_conf conf;
    struct ps_clock clock;
    struct ps_wake wake;
    struct ps_model_config model; /* a copy: the executor's thread owns the model */
    struct wk_kv_layout layout;
    struct pb_worker_info info;
    uint32_t n_threads;
    struct wk_exec *exec;
    struct wk_link *link;
    struct wk_sched *sched;
    int sig_fd;
    uint32_t n_signals;
    uint64_t drain_until_us; /* 0: not draining */
};

static bool check_conf(const void *p, struct ps_buf *err)
{
    const struct wk_conf *c = p;
    uint64_t bytes;

    if (c->model[0] == '\0') {
        ps_buf_add_str(err, "--model: a model directory is needed");
        return false;
    }
    if (c->kv_bytes[0] != '\0' && !wk_size_parse(c->kv_bytes, &bytes)) {
        ps_buf_addf(err, "--kv-bytes: '%s' is not a size such as 512M or 4GiB", c->kv_bytes);
        return false;
    }
    if (c->routers.n == 0) {
        ps_buf_add_str(err, "--router: at least one is needed");
        return false;
    }
    if ((c->curve_secret_file[0] == '\0') != (c->curve_server_key_file[0] == '\0')) {
        ps_buf_add_str(err, "--curve-secret-file and --curve-server-key-file go together");
        return false;
    }
    return true;
}

static const struct kn_backend *backend_of(const struct wk_conf *c)
{
    return c->device == WK_DEVICE_REF ? kn_backend_ref() : kn_backend_cpu();
}

/* Opens the device for a moment: a bad --isa is told before gigabytes are loaded, and its identity
 * is known before the executor's thread owns it. */
static bool ask_device(struct worker *w, uint64_t *out_arith, struct ps_buf *err)
{
    const struct kn_backend *be = backend_of(&w->conf);
    const struct kn_dev_conf dc = {.n_threads = w->n_threads, .isa = w->conf.isa};
    struct kn_dev *d = NULL;
    int r = be->open(&d, &dc);

    if (r != KN_OK) {
        ps_buf_addf(err, "--isa: device %s cannot run '%s' on this machine", be->name, w->conf.isa);
        return false;
    }
    *out_arith = be->arith_id(d);
    (void)snprintf(w->info.device, sizeof(w->info.device), "%s %s", be->name, be->describe(d));
    be->close(d);
    return true;
}

static void fill_name(struct worker *w)
{
    char path[PATH_MAX];
    const char *name = w->conf.served_name;

    if (name[0] == '\0')
        name = realpath(w->conf.model, path) != NULL ? basename(path) : "model";
    (void)snprintf(w->info.model, sizeof(w->info.model), "%s", name);
}

static bool fill_info(struct worker *w, const struct wk_model *m, uint64_t device_arith,
                      struct ps_buf *err)
{
    static const char *const dtypes[] = {[KN_F32] = "f32", [KN_BF16] = "bf16", [KN_F16] = "f16"};
    struct pb_worker_info *i = &w->info;

    if (wk_tokenizer_digest(w->conf.model, i->tokenizer_digest, err) != WK_IDENTITY_OK ||
        wk_uid(w->conf.uid, w->conf.uid_file, &i->uid, err) != WK_IDENTITY_OK)
        return false;
    i->incarnation =
        ps_wall_us(&w->clock) * 1000; /* start time in ns: routers order incarnations */
    i->space_id =
        wk_space_id(wk_model_weights_digest(m), i->tokenizer_digest, &w->model, &w->layout);
    i->arith_id = wk_arith_id(device_arith, &w->layout);
    fill_name(w);
    (void)snprintf(i->dtype, sizeof(i->dtype), "%s", dtypes[wk_model_dtype(m)]);
    i->context = w->model.max_pos;
    if (w->conf.max_model_len > 0)
        i->context = ps_min_u32(i->context, (uint32_t)w->conf.max_model_len);
    i->n_vocab = wk_model_n_vocab_valid(m);
    i->page_tokens = w->layout.group[0].page_tokens;
    i->stride_tokens = ps_max_u32(STRIDE_TOKENS_MIN, i->page_tokens);
    i->n_slots = (uint32_t)w->conf.max_seqs;
    i->max_waiting = (uint32_t)w->conf.max_waiting;
    i->exact = true;
    return true;
}

/* A quarter of what is free, shared out; but no more than all rows at their full length could use. */
static uint64_t kv_budget(const struct worker *w)
{
    uint64_t item = w->layout.group[0].item_bytes, bytes;
    uint64_t n_pages = ps_div_up_u64(w->info.context, w->layout.group[0].page_tokens);

    if (w->conf.kv_bytes[0] != '\0' && wk_size_parse(w->conf.kv_bytes, &bytes))
        return bytes;
    bytes = wk_host_mem_available() / 4 / (uint64_t)w->conf.workers_on_host;
    return ps_max_u64(PAGES_MIN * item, ps_min_u64(bytes, n_pages * w->info.n_slots * item));
}

static bool make_exec(struct worker *w, struct ps_buf *err)
{
    struct wk_model *m = NULL;
    uint64_t device_arith;
    struct wk_exec_dev_conf ec;

    if (!ask_device(w, &device_arith, err) || wk_model_load(&m, w->conf.model, err) != WK_MODEL_OK)
        return false;
    w->model = *wk_model_config(m);
    w->layout = *wk_model_layout(m);
    ps_info("model loaded", "dir=%s dtype=%s layers=%u weights_shared=%d", w->conf.model,
            w->model.dtype, w->model.n_layer, wk_model_is_shared(m));
    if (!fill_info(w, m, device_arith, err)) {
        wk_model_destroy(m);
        return false;
    }
    ec = (struct wk_exec_dev_conf){
        .backend = backend_of(&w->conf),
        .dev = {.n_threads = w->n_threads, .isa = w->conf.isa},
        .kv_bytes = kv_budget(w),
        .n_slots = w->info.n_slots,
        .n_tok_max = w->info.n_slots + (uint32_t)w->conf.chunk, /* decode rows cost no chunk */
    };
    if (wk_exec_dev_create(&w->exec, m, &ec, err) != 0) {
        wk_model_destroy(m);
        return false;
    }
    if (w->exec->n_pages < PAGES_MIN) {
        ps_buf_addf(err, "--kv-bytes: %llu bytes hold %u pages, %u are needed",
                    (unsigned long long)ec.kv_bytes, w->exec->n_pages, PAGES_MIN);
        return false;
    }
    w->info.kv_pages_total = w->exec->n_pages;
    return true;
}

static bool make_link(struct worker *w, struct ps_buf *err)
{
    const struct wk_link_conf lc = {
        .routers = w->conf.routers.items,
        .n_routers = w->conf.routers.n,
        .info = w->info,
        .n_attempts_max = w->info.n_slots + w->info.max_waiting,
        .curve_secret_file = w->conf.curve_secret_file,
        .curve_server_key_file = w->conf.curve_server_key_file,
        .inject = w->conf.inject,
    };
    int r = ps_wake_init(&w->wake);

    if (r == 0)
        r = wk_link_create(&w->link, &lc, &w->clock, &w->wake);
    if (r != 0)
        ps_buf_addf(err, "the link cannot be made: %s", strerror(-r));
    return r == 0;
}

static bool start(struct worker *w, struct ps_buf *err)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t set;
    struct wk_sched_conf sc;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread: all of them inherit it */
    (void)sigaction(SIGPIPE, &ignore, NULL);
    w->sig_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (w->sig_fd < 0) {
        ps_buf_addf(err, "signals cannot be read: %s", strerror(errno));
        return false;
    }
    w->n_threads = w->conf.threads > 0 ? (uint32_t)w->conf.threads
                                       : wk_host_threads((uint32_t)w->conf.workers_on_host);
    if (!make_exec(w, err) || !make_link(w, err))
        return false;
    sc = (struct wk_sched_conf){
        .clock = &w->clock,
        .link = w->link,
        .exec = w->exec,
        .layout = &w->layout,
        .eos = {w->model.eos, w->model.n_eos},
        .context = w->info.context,
        .chunk = (uint32_t)w->conf.chunk,
        .reserve = (uint32_t)w->conf.growth_reserve,
        .max_waiting = w->info.max_waiting,
    };
    w->sched = wk_sched_create(&sc);
    if (wk_link_start(w->link) != 0) {
        ps_buf_add_str(err, "the link thread cannot be started");
        return false;
    }
    return true;
}

static void read_signals(struct worker *w)
{
    struct signalfd_siginfo si;

    while (read(w->sig_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
        w->n_signals++;
    if (w->n_signals == 0 || w->drain_until_us != 0)
        return;
    w->drain_until_us = ps_now_us(&w->clock) + (uint64_t)w->conf.drain_timeout_s * 1000000 + 1;
    wk_sched_drain(w->sched, true);
    wk_link_set_draining(w->link, true);
}

/* What was asked for has been done, was asked for twice, or took too long. */
static bool may_leave(const struct worker *w)
{
    if (w->drain_until_us == 0)
        return false;
    return (wk_sched_is_idle(w->sched) && wk_link_idle(w->link)) || w->n_signals > 1 ||
           ps_now_us(&w->clock) >= w->drain_until_us;
}

/* Everything that can happen while the thread sleeps either rings the wake, makes the executor's
 * descriptor readable, is a signal, or is covered by the timer. */
static int serve(struct worker *w)
{
    struct pollfd fds[3] = {{.fd = w->wake.fd, .events = POLLIN},
                            {.fd = w->exec->ops->wake_fd(w->exec), .events = POLLIN},
                            {.fd = w->sig_fd, .events = POLLIN}};
    uint32_t wait_ms, n_joined = 0;

    for (;;) {
        int r;

        ps_wake_arm(&w->wake); /* before the tick: what is pushed during it rings */
        r = wk_sched_tick(w->sched, &wait_ms);
        if (r < 0)
            return r;
        if (wk_link_n_joined(w->link) != n_joined) {
            n_joined = wk_link_n_joined(w->link);
            ps_info("routers", "joined=%u", n_joined);
        }
        read_signals(w);
        if (may_leave(w))
            return 0;
        if (w->drain_until_us != 0)
            wait_ms = ps_min_u32(wait_ms, 20); /* acknowledgements arrive without a wake */
        if (poll(fds, PS_ARRAY_LEN(fds), (int)wait_ms) < 0 && errno != EINTR)
            return PS_FAULT(-errno);
        ps_wake_clear(&w->wake);
    }
}

static void stop(struct worker *w)
{
    if (w->link != NULL)
        wk_link_stop(w->link); /* Bye: routers move what is still open */
    if (w->exec != NULL)
        w->exec->ops->destroy(w->exec);
    wk_sched_destroy(w->sched);
    wk_link_destroy(w->link);
    if (w->wake.fd > 0)
        ps_wake_fini(&w->wake);
    if (w->sig_fd >= 0)
        (void)close(w->sig_fd);
}

int main(int argc, char **argv)
{
    static const struct ps_conf_table table = {
        .prog = "worker",
        .usage = "penstock-worker --model DIR [options]",
        .about = "Runs a model and serves it to the routers it dials. No port is opened.",
        .opts = wk_conf_opts,
        .n_opts = PS_ARRAY_LEN(wk_conf_opts),
    };
    static struct worker w; /* zeroed; lives until exit */
    struct ps_buf err = PS_BUF_INIT;
    int r = ps_conf_load(&table, argc, argv, &w.conf, NULL, check_conf, &err), status = 1;

    w.sig_fd = -1;
    if (r == PS_CONF_E_DONE)
        return 0;
    if (r != PS_CONF_OK) {
        (void)fprintf(stderr, "penstock-worker: %s\n", err.data != NULL ? err.data : "bad options");
        ps_buf_fini(&err);
        return 2;
    }
    ps_log_init("worker", (enum ps_log_level)w.conf.log_level);
    ps_clock_real(&w.clock);
    if (!start(&w, &err)) {
        ps_error("cannot start", "why=\"%s\"", err.data != NULL ? err.data : "unknown");
    } else {
        ps_info("ready", "uid=%016llx model=%s device=\"%s\" context=%u rows=%u kv_pages=%u",
                (unsigned long long)w.info.uid, w.info.model, w.info.device, w.info.context,
                w.info.n_slots, w.exec->n_pages);
        r = serve(&w);
        if (r < 0)
            ps_error("the executor failed; leaving", "why=\"%s\" at=%s", strerror(-r),
                     ps_fault_where());
        else
            ps_info("leaving", "drained=%d", wk_sched_is_idle(w.sched));
        status = r < 0 ? 1 : 0;
    }
    stop(&w);
    ps_buf_fini(&err);
    return status;
}
