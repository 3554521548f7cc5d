#include "bench/load/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bench/load/event.h"
#include "bench/load/reader.h"

enum {
    READ_BYTES = 256 << 10,
    EVENTS_MAX = 256,       /* taken from epoll at once */
    TICK_US = 250000,       /* how late a deadline may be noticed */
    FILES_RESERVE = 64,     /* descriptors that are no connection */
    IDS_AT_ONCE_MAX = 4096, /* ids of one event that are kept */
};

/*
 * FREE -> CONNECT -> SEND -> READ -> IDLE -> SEND ...; from everywhere back to FREE. A connection
 * has a call in CONNECT, SEND and READ, and a descriptor everywhere but in FREE.
 */
enum conn_state { CONN_FREE, CONN_CONNECT, CONN_SEND, CONN_READ, CONN_IDLE };

struct conn {
    enum conn_state state;
    int fd;
    uint32_t target, epoch; /* epoch: tells an event for an earlier use of this slot */
    bool reused;            /* had an answer before: it may be closed under our feet */
    bool any;               /* a byte of this answer came */
    uint64_t start_us;
    size_t n_sent;
    struct ps_buf head;
    struct bn_call *call;
    struct bn_reader reader;
    struct bn_client *client;
    struct conn *next; /* in the free list or its target's idle list */
};

struct target {
    struct sockaddr_in addr;
    char name[64];
    struct conn *idle;
};

struct bn_client {
    struct target targets[BN_TARGETS_MAX];
    uint32_t n_targets, turn, n_streams, n_running;
    uint64_t timeout_us, tick_us, now_us;
    char *api_key;
    bn_done_fn done;
    void *ud;
    int epoll;
    struct conn *conns, *free;
    char *buf;
};

static const char *const error_names[BN_N_ERRORS] = {
    [BN_OK] = "ok",
    [BN_ERR_CONNECT] = "connect",
    [BN_ERR_CLOSED] = "closed",
    [BN_ERR_TIMEOUT] = "timeout",
    [BN_ERR_HTTP_4XX] = "http_4xx",
    [BN_ERR_HTTP_5XX] = "http_5xx",
    [BN_ERR_STREAM] = "stream",
    [BN_ERR_MALFORMED] = "malformed",
    [BN_ERR_COUNT] = "count",
};

const char *bn_error_name(enum bn_error e)
{
    PS_ASSERT(e < BN_N_ERRORS);
    return error_names[e];
}

uint64_t bn_now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint32_t bn_client_n_running(const struct bn_client *c)
{
    return c->n_running;
}

static bool read_target(const char *s, struct target *t)
{
    const char *colon = strrchr(s, ':');
    char host[64];
    uint32_t port = 0;
    size_t n;

    if (colon == NULL || (n = (size_t)(colon - s)) == 0 || n >= sizeof(host) ||
        strlen(s) >= sizeof(t->name))
        return false;
    memcpy(host, s, n);
    host[n] = '\0';
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || port > 65535)
            return false;
        port = port * 10 + (uint32_t)(*p - '0');
    }
    if (port == 0 || port > 65535)
        return false;
    t->addr.sin_family = AF_INET;
    t->addr.sin_port = htons((uint16_t)port);
    (void)snprintf(t->name, sizeof(t->name), "%s", s);
    return inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
                     &t->addr.sin_addr) == 1;
}

static bool raise_file_limit(uint32_t n)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return false;
    if (lim.rlim_cur < (rlim_t)n + FILES_RESERVE) {
        lim.rlim_cur = lim.rlim_max;
        if (lim.rlim_max < (rlim_t)n + FILES_RESERVE || setrlimit(RLIMIT_NOFILE, &lim) != 0)
            return false;
    }
    return true;
}

static void on_event(const char *data, size_t len, void *ud);

int bn_client_create(struct bn_client **out, const struct bn_client_conf *conf)
{
    struct bn_client *c;
    int r = BN_CLIENT_OK;

    PS_ASSERT(conf->n_targets > 0 && conf->n_targets <= BN_TARGETS_MAX);
    PS_ASSERT(conf->n_streams_max > 0 && conf->n_streams_max <= BN_STREAMS_MAX);
    if (!raise_file_limit(conf->n_streams_max))
        return BN_CLIENT_E_FILES;
    c = ps_calloc(1, sizeof(*c));
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->n_targets = conf->n_targets;
    c->n_streams = conf->n_streams_max;
    c->timeout_us = conf->timeout_us;
    c->api_key = ps_strdup(conf->api_key);
    c->done = conf->done;
    c->ud = conf->ud;
    c->buf = ps_alloc(READ_BYTES);
    c->conns = ps_calloc(c->n_streams, sizeof(c->conns[0]));
    for (uint32_t i = c->n_streams; i-- > 0;) {
        struct conn *k = &c->conns[i];

        k->fd = -1;
        k->client = c;
        bn_reader_init(&k->reader, on_event, k);
        k->next = c->free;
        c->free = k;
    }
    for (uint32_t i = 0; i < c->n_targets; i++) {
        if (!read_target(conf->targets[i], &c->targets[i]))
            r = BN_CLIENT_E_ADDRESS;
    }
    if (c->epoll < 0)
        r = PS_FAULT(-errno);
    if (r != BN_CLIENT_OK)
        bn_client_destroy(c);
    else
        *out = c;
    return r;
}

void bn_client_destroy(struct bn_client *c)
{
    if (c == NULL)
        return;
    for (uint32_t i = 0; i < c->n_streams; i++) {
        ps_close_fd(&c->conns[i].fd);
        bn_reader_fini(&c->conns[i].reader);
        ps_buf_fini(&c->conns[i].head);
    }
    ps_close_fd(&c->epoll);
    ps_free(c->conns);
    ps_free(c->api_key);
    ps_free(c->buf);
    ps_free(c);
}

static void fail(struct bn_call *call, enum bn_error e, const char *said)
{
    if (call->error != BN_OK)
        return;
    call->error = e;
    (void)snprintf(call->said, sizeof(call->said), "%s", said);
}

/* An event of the answer: tokens, the end of the choice, the usage, or an error. */
static void on_event(const char *data, size_t len, void *ud)
{
    struct conn *k = ud;
    struct bn_call *call = k->call;
    uint32_t ids[IDS_AT_ONCE_MAX];
    struct bn_event e;
    uint64_t now = k->client->now_us;

    if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
        call->has_done = true;
        return;
    }
    if (bn_event_read(data, len, &e, ids, PS_ARRAY_LEN(ids)) != BN_EVENT_OK ||
        e.n_ids > PS_ARRAY_LEN(ids)) {
        fail(call, BN_ERR_MALFORMED, "an event is no completion chunk");
        return;
    }
    if (e.has_error)
        fail(call, BN_ERR_STREAM, e.error);
    if (e.has_usage) {
        call->has_usage = true;
        call->n_prompt_told = e.n_prompt;
        call->n_output_told = e.n_completion;
        call->n_cached = e.n_cached;
    }
    if (e.finish[0] != '\0')
        memcpy(call->finish, e.finish, sizeof(call->finish));
    for (uint32_t i = 0; i < e.n_ids; i++, call->n_ids++) {
        if (call->ids != NULL && call->n_ids < call->n_output)
            call->ids[call->n_ids] = ids[i];
    }
    if (e.n_ids == 0 && !(e.has_text && !call->with_ids))
        return; /* no token: a head, a finish, a usage */
    if (call->n_events++ == 0)
        call->first_us = now;
    else if (call->gaps != NULL)
        bn_sample_add(call->gaps, now - call->last_us);
    call->last_us = now;
}

static void check(struct bn_call *call)
{
    char said[160];

    if (!call->has_done) {
        fail(call, BN_ERR_CLOSED, "the stream ended without [DONE]");
    } else if (!call->has_usage) {
        fail(call, BN_ERR_COUNT, "no usage came");
    } else if (call->n_prompt_told != call->n_prompt || call->n_output_told != call->n_output ||
               (call->with_ids && call->n_ids != call->n_output) || call->n_events == 0 ||
               call->n_cached > call->n_prompt) {
        (void)snprintf(said, sizeof(said),
                       "prompt %llu of %u, output %llu of %u, %u ids, %llu cached",
                       (unsigned long long)call->n_prompt_told, call->n_prompt,
                       (unsigned long long)call->n_output_told, call->n_output, call->n_ids,
                       (unsigned long long)call->n_cached);
        fail(call, BN_ERR_COUNT, said);
    } else if (strcmp(call->finish, "length") != 0) {
        fail(call, BN_ERR_COUNT, "the answer did not end for its length");
    }
}

static void shut(struct conn *k)
{
    ps_close_fd(&k->fd);
    k->epoch++;
    k->state = CONN_FREE;
    k->next = k->client->free;
    k->client->free = k;
}

static void unlink_idle(struct conn *k)
{
    struct conn **at = &k->client->targets[k->target].idle;

    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
}

/* The call is over; the connection stays when `keep`. */
static void finish(struct conn *k, bool keep)
{
    struct bn_client *c = k->client;
    struct bn_call *call = k->call;
    struct target *t = &c->targets[k->target];

    PS_ASSERT(call != NULL && c->n_running > 0);
    k->call = NULL;
    c->n_running--;
    call->end_us = c->now_us;
    call->status = k->reader.status;
    if (keep) {
        k->state = CONN_IDLE;
        k->reused = true;
        k->next = t->idle;
        t->idle = k;
    } else {
        shut(k);
    }
    c->done(call, c->ud);
}

static void finish_with(struct conn *k, enum bn_error e, const char *said)
{
    fail(k->call, e, said);
    finish(k, false);
}

static bool watch(struct conn *k, int op, uint32_t events)
{
    struct epoll_event e = {.events = events};

    e.data.u64 = (uint64_t)k->epoch << 32 | (uint64_t)(k - k->client->conns);
    return epoll_ctl(k->client->epoll, op, k->fd, &e) == 0;
}

/* Opens the connection's socket and begins to connect; false with errno. */
static bool dial(struct conn *k)
{
    const struct sockaddr_in *a = &k->client->targets[k->target].addr;
    int one = 1;

    k->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (k->fd < 0)
        return false;
    (void)setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    k->state = CONN_CONNECT;
    k->reused = false;
    if (connect(k->fd, (const struct sockaddr *)a, sizeof(*a)) != 0 && errno != EINPROGRESS)
        return false;
    return watch(k, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void write_head(struct conn *k)
{
    struct bn_client *c = k->client;

    ps_buf_clear(&k->head);
    ps_buf_addf(&k->head,
                "POST /v1/completions HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n"
                "content-length: %zu\r\n",
                c->targets[k->target].name, k->call->body.len);
    if (c->api_key[0] != '\0')
        ps_buf_addf(&k->head, "authorization: Bearer %s\r\n", c->api_key);
    ps_buf_add_str(&k->head, "\r\n");
    k->n_sent = 0;
    k->any = false;
    bn_reader_start(&k->reader);
}

/* Finishes the call, or lets it go on with a new connection; always false. */
static bool lost(struct conn *k, const char *said)
{
    uint32_t target = k->target;

    if (k->reused && !k->any) {
        ps_close_fd(&k->fd);
        k->epoch++;
        k->target = target;
        write_head(k);
        if (!dial(k))
            finish_with(k, BN_ERR_CONNECT, strerror(errno));
    } else {
        finish_with(k, k->state == CONN_CONNECT ? BN_ERR_CONNECT : BN_ERR_CLOSED, said);
    }
    return false;
}

static bool send_more(struct conn *k)
{
    struct bn_call *call = k->call;
    struct iovec v[2];
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    size_t n_head = k->head.len - ps_min_size(k->n_sent, k->head.len);
    size_t n_body = k->n_sent - (k->head.len - n_head);
    ssize_t n;

    v[0] = (struct iovec){.iov_base = k->head.data + (k->head.len - n_head), .iov_len = n_head};
    v[1] = (struct iovec){.iov_base = call->body.data + n_body, .iov_len = call->body.len - n_body};
    n = sendmsg(k->fd, &m, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return watch(k, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT) || lost(k, "epoll");
    if (n < 0)
        return lost(k, strerror(errno));
    k->n_sent += (size_t)n;
    if (k->n_sent < k->head.len + call->body.len)
        return watch(k, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT) || lost(k, "epoll");
    k->state = CONN_READ;
    return watch(k, EPOLL_CTL_MOD, EPOLLIN) || lost(k, "epoll");
}

/* What an answer that is no stream says. */
static void judge_plain(struct conn *k)
{
    struct bn_event e;
    char said[160];
    uint16_t s = k->reader.status;
    const struct ps_buf *t = &k->reader.text;

    if (t->len > 0 && bn_event_read(t->data, t->len, &e, NULL, 0) == BN_EVENT_OK && e.has_error)
        (void)snprintf(said, sizeof(said), "%u: %.140s", s, e.error);
    else
        (void)snprintf(said, sizeof(said), "%u: %.*s", s, (int)ps_min_size(t->len, 140),
                       t->len > 0 ? t->data : "");
    fail(k->call, s >= 500 ? BN_ERR_HTTP_5XX : s >= 400 ? BN_ERR_HTTP_4XX : BN_ERR_MALFORMED, said);
}

static void end_of_answer(struct conn *k)
{
    bool keep = !k->reader.close && k->n_sent == k->head.len + k->call->body.len;

    if (k->reader.status == 200 && k->reader.sse)
        check(k->call);
    else
        judge_plain(k);
    finish(k, keep);
}

static void read_some(struct conn *k)
{
    struct bn_client *c = k->client;
    ssize_t n = recv(k->fd, c->buf, READ_BYTES, 0);

    c->now_us = bn_now_us();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (k->state == CONN_IDLE) { /* closed, or bytes that nobody asked for */
        unlink_idle(k);
        shut(k);
        return;
    }
    if (n > 0) {
        k->any = true;
        if (bn_reader_push(&k->reader, c->buf, (size_t)n) != BN_READER_OK)
            finish_with(k, BN_ERR_MALFORMED, "the answer is no HTTP/1.1");
        else if (k->reader.state == BN_READ_DONE)
            end_of_answer(k);
        return;
    }
    if (n == 0 && k->any && bn_reader_end(&k->reader))
        end_of_answer(k);
    else
        (void)lost(k, n == 0 ? "the server closed the connection" : strerror(errno));
}

static bool connected(struct conn *k)
{
    socklen_t len = sizeof(int);
    int err = 0;

    if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        err = errno;
    if (err != 0)
        return lost(k, strerror(err));
    k->state = CONN_SEND;
    return true;
}

static void on_ready(struct conn *k, uint32_t events)
{
    if (k->state == CONN_CONNECT && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 &&
        !connected(k))
        return;
    if (k->state == CONN_SEND && (events & EPOLLOUT) != 0 && !send_more(k))
        return;
    if (k->state != CONN_CONNECT && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
        read_some(k);
}

/* A connection for the target: one that waits there, a new one, or one that waits elsewhere. */
static struct conn *take_conn(struct bn_client *c, uint32_t target)
{
    struct conn *k = c->targets[target].idle;

    if (k != NULL) {
        c->targets[target].idle = k->next;
        return k;
    }
    for (uint32_t i = 0; i < c->n_targets && c->free == NULL; i++) {
        k = c->targets[i].idle;
        if (k != NULL) {
            unlink_idle(k);
            shut(k);
        }
    }
    k = c->free;
    if (k != NULL)
        c->free = k->next;
    return k;
}

int bn_client_send(struct bn_client *c, struct bn_call *call)
{
    uint32_t target = c->turn;
    struct conn *k;

    PS_ASSERT(call->body.len > 0 && call->n_prompt > 0 && call->n_output > 0);
    if (c->n_running == c->n_streams)
        return BN_CLIENT_E_FULL;
    k = take_conn(c, target);
    PS_ASSERT(k != NULL && k->call == NULL);
    c->turn = (c->turn + 1) % c->n_targets;
    c->n_running++;
    c->now_us = bn_now_us();
    call->error = BN_OK;
    call->status = 0;
    call->said[0] = call->finish[0] = '\0';
    call->first_us = call->last_us = call->end_us = 0;
    call->n_cached = call->n_prompt_told = call->n_output_told = 0;
    call->n_ids = call->n_events = 0;
    call->has_usage = call->has_done = false;
    k->target = target;
    k->call = call;
    k->start_us = c->now_us;
    write_head(k);
    if (k->state == CONN_IDLE) {
        k->state = CONN_SEND;
        (void)watch(k, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    } else if (!dial(k)) {
        /* Told by poll, as every other end is: done is never called inside send. */
        fail(call, BN_ERR_CONNECT, strerror(errno));
    }
    return BN_CLIENT_OK;
}

static void check_deadlines(struct bn_client *c)
{
    for (uint32_t i = 0; i < c->n_streams; i++) {
        struct conn *k = &c->conns[i];

        if (k->call == NULL)
            continue;
        if (k->call->error == BN_ERR_CONNECT)
            finish(k, false);
        else if (c->now_us - k->start_us > c->timeout_us)
            finish_with(k, BN_ERR_TIMEOUT, "no end in time");
    }
}

int bn_client_poll(struct bn_client *c, uint64_t wait_us)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec t;
    int n;

    wait_us = ps_min_u64(wait_us, TICK_US);
    t.tv_sec = (time_t)(wait_us / 1000000);
    t.tv_nsec = (long)(wait_us % 1000000) * 1000;
    n = epoll_pwait2(c->epoll, events, EVENTS_MAX, &t, NULL);
    if (n < 0 && errno != EINTR)
        return PS_FAULT(-errno);
    for (int i = 0; i < n; i++) {
        struct conn *k = &c->conns[events[i].data.u64 & UINT32_MAX];

        if (k->fd >= 0 && k->epoch == (uint32_t)(events[i].data.u64 >> 32))
            on_ready(k, events[i].events);
    }
    c->now_us = bn_now_us();
    if (c->now_us - c->tick_us >= TICK_US) {
        c->tick_us = c->now_us;
        check_deadlines(c);
    }
    return 0;
}
