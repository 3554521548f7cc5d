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
#include "common/model/file.h"
#include "common/model/vocab.h"
#include "worker/conf_def.h"
#include "worker/exec/exec_dev.h"
#include "worker/exec/exec_sim.h"
#include "worker/host.h"
#include "worker/identity.h"
#include "worker/sched/sched.h"
#include "worker/self_bench.h"
#include "worker/tier/hang.h"
#include "worker/trace.h"

enum {
    STRIDE_TOKENS_MIN = 64, /* routers index at least this many tokens at once */
    FLUSH_MS = 20000,       /* for cached pages on their way to disk when the worker leaves */
};

/* A pool must hold more than one short request to be worth starting. */
enum { PAGES_MIN = 4 };

enum { CONFIG_BYTES_MAX = 1 << 20 };

enum { BENCH_STEPS = 4000, BENCH_PAGES = 1 << 17 }; /* --self-bench: a few seconds */

struct facts { /* what the two kinds of executor tell of the model */
    uint64_t weights_digest, device_arith;
    uint32_t n_vocab_valid;
    const char *dtype;
};

struct worker {
    struct wk_conf conf;
    struct ps_clock clock;
    struct ps_wake wake;
    struct ps_model_config model; /* a copy: the executor's thread owns the model */
    struct wk_kv_layout layout;
    struct pb_worker_info info;
    uint32_t n_threads;
    struct wk_exec *exec;
    struct wk_store *store;
    struct wk_link *link;
    struct wk_sched *sched;
    struct wk_trace *trace;
    int sig_fd;
    uint32_t n_signals;
    uint64_t drain_until_us; /* 0: not draining */
};

static bool check_conf(const void *p, struct ps_buf *err)
{
    const struct wk_conf *c = p;
    const char *sizes[][2] = {{"kv-bytes", c->kv_bytes},
                              {"kv-host-bytes", c->kv_host_bytes},
                              {"kv-disk-bytes", c->kv_disk_bytes},
                              {"kv-share-bytes", c->kv_share_bytes}};
    const char *hangs[] = {c->inject_disk_hang, c->inject_share_hang};
    struct ps_buf why = PS_BUF_INIT;
    struct wk_cost cost;
    uint64_t bytes;

    if (c->self_bench)
        return true;
    if (c->model[0] == '\0') {
        ps_buf_add_str(err, "--model: a model directory is needed");
        return false;
    }
    for (uint32_t k = 0; k < PS_ARRAY_LEN(sizes); k++) {
        if (sizes[k][1][0] != '\0' && !wk_size_parse(sizes[k][1], &bytes)) {
            ps_buf_addf(err, "--%s: '%s' is not a size such as 512M or 4GiB", sizes[k][0],
                        sizes[k][1]);
            return false;
        }
    }
    if (c->kv_peers.n > WK_STORE_PEERS_MAX) {
        ps_buf_addf(err, "--kv-peer: %u are given, at most %d are possible", c->kv_peers.n,
                    WK_STORE_PEERS_MAX);
        return false;
    }
    for (uint32_t k = 0; k < PS_ARRAY_LEN(hangs); k++) {
        if (hangs[k][0] != '\0' && !wk_tier_hang_parse(hangs[k], &bytes, &bytes)) {
            ps_buf_addf(err, "--inject-*-hang: '%s' is not AT:FOR", hangs[k]);
            return false;
        }
    }
    if (c->sim_item_bytes % WK_SIM_ITEM_BYTES_MIN != 0) {
        ps_buf_add_str(err, "--sim-item-bytes: a multiple of 4096 is needed");
        return false;
    }
    if (c->sim_cost[0] != '\0' && c->sim_calibrate[0] != '\0') {
        ps_buf_add_str(err, "--sim-cost and --sim-calibrate exclude each other");
        return false;
    }
    if (wk_cost_parse(&cost, c->sim_cost, &why) != WK_COST_OK) {
        ps_buf_addf(err, "--sim-cost: %s", why.data);
        ps_buf_fini(&why);
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

static uint64_t size_of(const char *text) /* checked by check_conf */
{
    uint64_t bytes = 0;

    (void)wk_size_parse(text, &bytes);
    return bytes;
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

/* What lies below T0 in another form belongs to another space, and is not exact. */
static bool ask_format(const struct worker *w, uint64_t *out_id, struct ps_buf *err)
{
    struct wk_kv_format *f;

    if (wk_kv_format_create(&f, (enum wk_kv_codec)w->conf.kv_format, &w->layout, err) !=
        WK_FORMAT_OK)
        return false;
    *out_id = wk_kv_format_id(f);
    wk_kv_format_destroy(f);
    return true;
}

static bool fill_info(struct worker *w, const struct facts *f, struct ps_buf *err)
{
    struct pb_worker_info *i = &w->info;
    uint64_t format_id;

    if (!ask_format(w, &format_id, err) ||
        wk_tokenizer_digest(w->conf.model, i->tokenizer_digest, err) != WK_IDENTITY_OK ||
        wk_uid(w->conf.uid, w->conf.uid_file, &i->uid, err) != WK_IDENTITY_OK)
        return false;
    i->incarnation =
        ps_wall_us(&w->clock) * 1000; /* start time in ns: routers order incarnations */
    i->space_id =
        wk_space_id(f->weights_digest, i->tokenizer_digest, &w->model, &w->layout, format_id);
    i->arith_id = wk_arith_id(f->device_arith, &w->layout);
    fill_name(w);
    (void)snprintf(i->dtype, sizeof(i->dtype), "%s", f->dtype);
    i->context = w->model.max_pos;
    if (w->conf.max_model_len > 0)
        i->context = ps_min_u32(i->context, (uint32_t)w->conf.max_model_len);
    i->n_vocab = f->n_vocab_valid;
    i->page_tokens = w->layout.group[0].page_tokens;
    i->stride_tokens = ps_max_u32(STRIDE_TOKENS_MIN, i->page_tokens);
    i->n_slots = (uint32_t)w->conf.max_seqs;
    i->max_waiting = (uint32_t)w->conf.max_waiting;
    i->exact = w->conf.kv_format == WK_KV_RAW;
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

static bool make_dev(struct worker *w, struct ps_buf *err)
{
    static const char *const dtypes[] = {[KN_F32] = "f32", [KN_BF16] = "bf16", [KN_F16] = "f16"};
    struct wk_model *m = NULL;
    struct wk_exec_dev_conf ec;
    struct facts f;

    if (!ask_device(w, &f.device_arith, err) ||
        wk_model_load(&m, w->conf.model, err) != WK_MODEL_OK)
        return false;
    w->model = *wk_model_config(m);
    w->layout = *wk_model_layout(m);
    ps_info("model loaded", "dir=%s dtype=%s layers=%u weights_shared=%d", w->conf.model,
            w->model.dtype, w->model.n_layer, wk_model_is_shared(m));
    f.weights_digest = wk_model_weights_digest(m);
    f.n_vocab_valid = wk_model_n_vocab_valid(m);
    f.dtype = dtypes[wk_model_dtype(m)];
    if (!fill_info(w, &f, err)) {
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
    return true;
}

static bool sim_cost(const struct worker *w, struct wk_cost *out, struct ps_buf *err)
{
    uint32_t n_steps;
    double error;

    if (w->conf.sim_time == WK_SIM_TIME_FAST) {
        *out = (struct wk_cost){{0}};
        return true;
    }
    if (w->conf.sim_calibrate[0] == '\0')
        return wk_cost_parse(out, w->conf.sim_cost, err) == WK_COST_OK;
    ps_buf_add_str(err, "--sim-calibrate: ");
    if (wk_cost_calibrate(out, w->conf.sim_calibrate, &n_steps, &error, err) != WK_COST_OK)
        return false;
    ps_buf_clear(err);
    ps_info("calibrated",
            "steps=%u mean_error=%.3f base_us=%.3f row_us=%.3f prefill_us=%.4f kv_us=%.6f "
            "pair_us=%.8f",
            n_steps, error, out->us[WK_COST_BASE], out->us[WK_COST_ROW], out->us[WK_COST_PREFILL],
            out->us[WK_COST_KV], out->us[WK_COST_PAIR]);
    return true;
}

/* Nothing of the weights is read: config.json stands for them, and no real worker has this identity. */
static bool make_sim(struct worker *w, struct ps_buf *err)
{
    struct wk_exec_sim_conf ec = {.clock = &w->clock, .with_timer = true, .depth = 2};
    struct ps_buf text = PS_BUF_INIT;
    struct facts f = {.dtype = w->model.dtype};
    int r;

    if (!sim_cost(w, &ec.cost, err) ||
        ps_model_config_load(&w->model, w->conf.model, err) != PS_MODEL_OK ||
        ps_vocab_n_ids(w->conf.model, &f.n_vocab_valid, err) != PS_VOCAB_OK)
        return false;
    r = ps_file_read(w->conf.model, "config.json", CONFIG_BYTES_MAX, &text);
    if (r == PS_FILE_OK)
        f.weights_digest = ps_hash64(text.data, text.len, ps_hash64("sim 1", 5, 0));
    else
        ps_buf_add_str(err, "config.json cannot be read");
    ps_buf_fini(&text);
    if (r != PS_FILE_OK)
        return false;
    f.n_vocab_valid = ps_min_u32(f.n_vocab_valid, w->model.n_vocab);
    f.device_arith = ps_hash64(&w->conf.sim_eos, sizeof(w->conf.sim_eos), f.weights_digest);
    wk_exec_sim_layout(&w->layout, (uint32_t)w->conf.sim_item_bytes);
    (void)snprintf(w->info.device, sizeof(w->info.device), "sim");
    if (!fill_info(w, &f, err))
        return false;
    ec.n_slots = w->info.n_slots;
    ec.kv_bytes = kv_budget(w);
    ec.item_bytes = (uint32_t)w->conf.sim_item_bytes;
    ec.vocab = (struct wk_sim_vocab){.n_ids = f.n_vocab_valid,
                                     .eos = w->model.eos,
                                     .n_eos = w->model.n_eos,
                                     .p_eos = w->conf.sim_eos};
    return wk_exec_sim_create(&w->exec, &ec, err) == 0;
}

static bool make_exec(struct worker *w, struct ps_buf *err)
{
    if (!(w->conf.device == WK_DEVICE_SIM ? make_sim(w, err) : make_dev(w, err)))
        return false;
    if (w->exec->n_pages < PAGES_MIN) {
        ps_buf_addf(err, "--kv-bytes: room for %u pages of %u bytes, %u are needed",
                    w->exec->n_pages, w->layout.group[0].item_bytes, PAGES_MIN);
        return false;
    }
    w->info.kv_pages_total = w->exec->n_pages;
    return true;
}

/* Lower tiers hand their bytes through the host's memory, so with them there is always some. */
static uint64_t kv_host_budget(const struct worker *w)
{
    const struct wk_conf *c = &w->conf;
    bool needed = c->kv_disk[0] != '\0' || c->kv_share[0] != '\0' || c->kv_peers.n > 0 ||
                  c->kv_peer_listen[0] != '\0';

    if (c->kv_host_bytes[0] != '\0')
        return size_of(c->kv_host_bytes);
    return needed ? wk_host_mem_available() / 8 / (uint64_t)c->workers_on_host : 0;
}

static bool make_store(struct worker *w, struct ps_buf *err)
{
    const struct wk_conf *c = &w->conf;
    const struct wk_store_conf sc = {
        .layout = &w->layout,
        .clock = &w->clock,
        .wake = &w->wake,
        .exec = w->exec,
        .space_id = w->info.space_id,
        .arith_id = w->info.arith_id,
        .stride_tokens = w->info.stride_tokens,
        .codec = (enum wk_kv_codec)c->kv_format,
        .t1_bytes = kv_host_budget(w),
        .t2_path = c->kv_disk,
        .t2_bytes = size_of(c->kv_disk_bytes),
        .t3_path = c->kv_share,
        .t3_bytes = size_of(c->kv_share_bytes),
        .peer_listen = c->kv_peer_listen,
        .peers = c->kv_peers.items,
        .n_peers = c->kv_peers.n,
        .peer_secret_file = c->kv_peer_secret_file,
        .t2_hang = c->inject_disk_hang,
        .t3_hang = c->inject_share_hang,
    };

    if (wk_store_create(&w->store, &sc, err) != WK_TIER_OK)
        return false;
    if (wk_store_peer_address(w->store)[0] != '\0')
        ps_info("serving KV pages to peers", "address=%s", wk_store_peer_address(w->store));
    return true;
}

static bool make_trace(struct worker *w, struct ps_buf *err)
{
    if (w->conf.trace[0] == '\0')
        return true;
    ps_buf_add_str(err, "--trace: ");
    if (wk_trace_create(&w->trace, w->conf.trace, (uint64_t)w->conf.trace_max << 20, &w->clock,
                        err) != 0)
        return false;
    ps_buf_clear(err);
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
    int r = wk_link_create(&w->link, &lc, &w->clock, &w->wake);

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
    (void)sigaction(SIGXFSZ, &ignore,
                    NULL); /* a file at its limit: the write fails, as on a full disk */
    w->sig_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (w->sig_fd < 0) {
        ps_buf_addf(err, "signals cannot be read: %s", strerror(errno));
        return false;
    }
    w->n_threads = w->conf.threads > 0 ? (uint32_t)w->conf.threads
                                       : wk_host_threads((uint32_t)w->conf.workers_on_host);
    if (ps_wake_init(&w->wake) != 0) {
        ps_buf_add_str(err, "there is no descriptor left for a wake");
        return false;
    }
    if (!make_exec(w, err) || !make_store(w, err) || !make_trace(w, err) || !make_link(w, err))
        return false;
    sc = (struct wk_sched_conf){
        .clock = &w->clock,
        .port = wk_link_port(w->link),
        .exec = w->exec,
        .store = w->store,
        .layout = &w->layout,
        .trace = w->trace,
        .eos = {w->model.eos, w->model.n_eos},
        .context = w->info.context,
        .chunk = (uint32_t)w->conf.chunk,
        .itl_us = (uint64_t)w->conf.itl_target_ms * 1000,
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
    wk_sched_destroy(w->sched);
    wk_store_destroy(w->store, FLUSH_MS);
    if (w->exec != NULL)
        w->exec->ops->destroy(w->exec);
    wk_trace_destroy(w->trace);
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
        .about = "Runs a model and serves it to the routers it dials. "
                 "Only --kv-peer-listen opens a port.",
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
    if (w.conf.self_bench)
        return wk_self_bench(stdout, BENCH_STEPS, BENCH_PAGES) == 0 &&
                       wk_self_bench_tiers(stdout, w.conf.kv_disk, w.conf.kv_share) == 0
                   ? 0
                   : 1;
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
