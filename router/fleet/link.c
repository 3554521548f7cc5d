#include <string.h>

#include "common/log.h"
#include "router/fleet/fleet_internal.h"

enum { IDLE_WAIT_MS = 50, CMD_BURST = 4096, BYE_LINGER_MS = 100 };

/* ---- out ---- */

/* ps_inject_fn of the way out; the direct path too. */
static void deliver(void *ud, uint64_t tag, const uint8_t *id, size_t id_len, const uint8_t *data,
                    size_t len)
{
    struct rt_fleet *f = ud;

    (void)tag;
    f->send_result = ps_mq_send(f->sock, id, id_len, data, len);
}

static int send_to(struct rt_fleet *f, const uint8_t *id)
{
    const uint8_t *data = (const uint8_t *)f->buf.data;

    PS_ASSERT(f->buf.len <= PB_SEND_MAX);
    f->send_result = PS_MQ_OK;
    if (f->inject_out != NULL)
        ps_inject_pass(f->inject_out, f->now_us, 0, id, RT_ID_BYTES, data, f->buf.len, deliver, f);
    else
        deliver(f, 0, id, RT_ID_BYTES, data, f->buf.len);
    return f->send_result;
}

int rt_link_send(struct rt_fleet *f, struct rt_peer *p)
{
    int r;

    if (p->epoch == 0)
        return PS_MQ_E_GONE;
    r = send_to(f, p->id);
    if (r == PS_MQ_OK)
        p->seq_out++;
    else if (r == PS_MQ_E_GONE && p->unreachable_us == 0)
        p->unreachable_us = f->now_us; /* a hint: the lease judges */
    return r;
}

static struct pb_head head_of(const struct rt_fleet *f, const struct rt_peer *p, enum pb_kind kind)
{
    return (struct pb_head){.kind = (uint8_t)kind,
                            .epoch = p->epoch,
                            .seq = p->seq_out,
                            .rinc = f->rinc,
                            .winc = p->info.incarnation};
}

int rt_link_send_msg(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m, enum pb_kind kind)
{
    m->head = head_of(f, p, kind);
    ps_buf_clear(&f->buf);
    pb_msg_encode(&f->buf, m);
    return rt_link_send(f, p);
}

void rt_link_send_attempt(struct rt_fleet *f, struct rt_peer *p, enum pb_kind kind, uint64_t req,
                          uint32_t attempt, uint64_t dispatch_seq, uint32_t from)
{
    struct pb_msg m = {.attempt = {req, attempt, dispatch_seq, from}};

    (void)rt_link_send_msg(f, p, &m,
                           kind); /* each of them has a timer or a state that repeats it */
}

/* A frame of an unknown incarnation or epoch: its sender does not know that we know nothing of it. */
static void send_who(struct rt_fleet *f, const uint8_t *id, const struct pb_head *h)
{
    uint64_t *last = &f->who_us[pb_load_u64(id) % RT_WHO_SLOTS];
    struct pb_msg m = {.echo_epoch = h->epoch};

    if (*last != 0 && f->now_us - *last < RT_WHO_MIN_US)
        return;
    *last = f->now_us;
    m.head = (struct pb_head){.kind = PB_WHO, .epoch = h->epoch, .rinc = f->rinc, .winc = h->winc};
    ps_buf_clear(&f->buf);
    pb_msg_encode(&f->buf, &m);
    (void)send_to(f, id);
}

/* ---- in ---- */

static void on_current(struct rt_fleet *f, struct rt_peer *p, struct pb_msg *m)
{
    struct rt_att *a;

    switch (m->head.kind) {
    case PB_BEAT:
        rt_peer_on_beat(f, p, m);
        break;
    case PB_TOKENS:
        rt_att_on_tokens(f, p, m);
        break;
    case PB_ACCEPT:
        a = rt_att_current(f, p, m->attempt.req, m->attempt.attempt);
        if (a != NULL)
            rt_att_accept(f, a, m->head.seq);
        else
            rt_cancel_add(f, p, m->attempt.req, m->attempt.attempt, m->attempt.dispatch_seq);
        break;
    case PB_REJECT:
        rt_att_on_reject(f, p, &m->refusal);
        break;
    case PB_FINISHED:
        rt_att_on_finished(f, p, m);
        break;
    case PB_OPENLIST:
        rt_repair_on_list(f, p, m);
        break;
    case PB_ADMIN_REPLY:
        rt_peer_on_admin_reply(p, m->admin.id);
        break;
    case PB_BYE:
        rt_peer_on_bye(f, p);
        break;
    default:
        ps_counter_add(f->count.bad, 1);
        break;
    }
}

/* The peer if all three numbers of the frame and the connection it came by are current. */
static struct rt_peer *current_peer(struct rt_fleet *f, const uint8_t *id, const struct pb_head *h)
{
    uint64_t slot;
    struct rt_peer *p;

    if (!ps_map_get(&f->by_uid, pb_load_u64(id), &slot))
        return NULL;
    p = f->peers[slot];
    if (p->epoch == 0 || h->epoch != p->epoch || h->rinc != f->rinc ||
        h->winc != p->info.incarnation || memcmp(p->id, id, RT_ID_BYTES) != 0)
        return NULL;
    return p;
}

static void on_hello(struct rt_fleet *f, const uint8_t *id, const struct pb_msg *m)
{
    const struct pb_worker_info *w = &m->hello.info;

    if (w->uid != pb_load_u64(id) || w->incarnation != pb_load_u64(id + 8) ||
        m->hello.nonce != pb_load_u32(id + 16) || m->head.winc != w->incarnation) {
        ps_counter_add(f->count.bad, 1);
        return;
    }
    rt_peer_on_hello(f, id, &m->hello);
}

/* ps_inject_fn of the way in; the direct path too. id has RT_ID_BYTES. */
static void on_frame(void *ud, uint64_t tag, const uint8_t *id, size_t id_len, const uint8_t *data,
                     size_t len)
{
    struct rt_fleet *f = ud;
    struct rt_peer *p = NULL;
    struct pb_head h;
    struct pb_msg m;

    (void)tag;
    PS_ASSERT(id_len == RT_ID_BYTES);
    if (pb_msg_peek(data, len, &h) != PB_MSG_OK) {
        ps_counter_add(f->count.bad, 1);
        return;
    }
    if (h.kind != PB_HELLO) {
        p = current_peer(f, id, &h);
        if (p == NULL) {
            ps_counter_add(f->count.stale, 1);
            send_who(f, id, &h);
            return;
        }
    }
    if (pb_msg_decode(data, len, &m) != PB_MSG_OK) {
        ps_counter_add(f->count.bad, 1);
        return;
    }
    if (h.kind == PB_HELLO) {
        on_hello(f, id, &m);
    } else {
        p->heard_us = f->now_us;
        p->unreachable_us = 0;
        on_current(f, p, &m);
    }
    pb_msg_fini(&m);
}

/* With CURVE the connection's key names a worker, and every frame must be that worker's. */
static bool user_matches(const struct rt_fleet *f, const struct ps_mq_msg *msg)
{
    static const char hex[] = "0123456789abcdef";
    uint64_t uid = pb_load_u64(msg->id);

    if (!f->keys.on)
        return true;
    for (uint32_t i = 0; i < 16; i++) {
        if (msg->user_id[i] != hex[(uid >> (60 - 4 * i)) & 15])
            return false;
    }
    return true;
}

static void drain_socket(struct rt_fleet *f)
{
    struct ps_mq_msg msg;

    for (uint32_t i = 0; i < RT_RECV_MAX; i++) {
        int r = ps_mq_recv(f->sock, &msg);

        if (r == PS_MQ_E_AGAIN)
            return;
        if (r != PS_MQ_OK || msg.id_len != RT_ID_BYTES || !user_matches(f, &msg)) {
            ps_counter_add(f->count.bad, 1);
            continue;
        }
        if (f->inject_in != NULL)
            ps_inject_pass(f->inject_in, f->now_us, 0, msg.id, msg.id_len, msg.data, msg.len,
                           on_frame, f);
        else
            on_frame(f, 0, msg.id, msg.id_len, msg.data, msg.len);
    }
}

/* ---- the thread ---- */

static void take_commands(struct rt_fleet *f)
{
    for (uint32_t loop = 0; loop < f->n_loops; loop++) {
        struct rt_cmd c;

        for (uint32_t i = 0; i < CMD_BURST; i++) {
            if (ps_ring_pop(f->loops[loop].cmds, &c) != PS_RING_OK)
                break;
            if (c.kind == RT_CMD_SUBMIT)
                rt_att_submit(f, loop, &c);
            else if (c.kind == RT_CMD_CANCEL)
                rt_att_cancel(f, loop, c.req, c.attempt);
            else if (c.worker < RT_MAX_WORKERS && f->peers[c.worker] != NULL)
                rt_peer_admin(f, f->peers[c.worker], c.op);
        }
    }
}

static bool commands_wait(const struct rt_fleet *f)
{
    for (uint32_t loop = 0; loop < f->n_loops; loop++) {
        if (ps_ring_n(f->loops[loop].cmds) > 0)
            return true;
    }
    return false;
}

/* One turn. The order matters: all that arrived is read before anyone's silence is judged. */
static void turn(struct rt_fleet *f, uint64_t expected_us)
{
    uint64_t late_us;

    f->now_us = ps_now_us(f->clock);
    late_us = f->now_us > expected_us ? f->now_us - expected_us : 0;
    drain_socket(f);
    if (f->inject_in != NULL)
        ps_inject_due(f->inject_in, f->now_us, on_frame, f);
    if (f->inject_out != NULL)
        ps_inject_due(f->inject_out, f->now_us, deliver, f);
    if (late_us > RT_STALL_US) {
        rt_peer_extend(f, late_us);
        rt_att_extend(f, late_us);
    }
    take_commands(f);
    if (f->now_us >= f->scan_next_us) {
        f->scan_next_us = f->now_us + RT_SCAN_US;
        for (uint32_t i = 0; i < RT_MAX_WORKERS; i++) {
            if (f->peers[i] != NULL)
                rt_peer_scan(f, f->peers[i]);
        }
        rt_att_scan(f);
    }
    rt_view_flush(f);
}

static void say_bye(struct rt_fleet *f)
{
    struct pb_msg m = {.head = {0}};

    for (uint32_t i = 0; i < RT_MAX_WORKERS; i++) {
        if (f->peers[i] != NULL && f->peers[i]->epoch != 0)
            (void)rt_link_send_msg(f, f->peers[i], &m, PB_BYE);
    }
}

void *rt_link_main(void *ud)
{
    struct rt_fleet *f = ud;
    uint64_t expected_us = ps_now_us(f->clock);

    while (!atomic_load(&f->stop)) {
        bool busy;
        uint32_t ms;

        turn(f, expected_us);
        busy = f->attn_first != NULL || f->inject_out != NULL;
        ms = busy ? RT_SCAN_US / 1000 : IDLE_WAIT_MS;
        ps_mq_set_clear(f->set);
        ps_mq_set_add_fd(f->set, f->wake.fd);
        ps_mq_set_add(f->set, f->sock, false);
        ps_wake_arm(&f->wake);
        if (commands_wait(f))
            ms = 0;
        expected_us = f->now_us + 1000ULL * ms;
        ps_mq_wait(f->set, ms);
        ps_wake_clear(&f->wake);
    }
    say_bye(f);
    ps_mq_close(f->sock, BYE_LINGER_MS);
    f->sock = NULL;
    return NULL;
}
