#include "worker/tier/peers_internal.h"

/*
 * Serving. A request is with the store (ASKED), then its bytes are on their way (ANSWERED), then it
 * is over. One whose connection dies while it is ASKED loses its conn and is over when the answer
 * comes; so the store hears of each exactly once more, and nobody reads a buffer after that.
 */

static void post_over(struct wk_peers *p, struct wk_peer_ask *ask)
{
    PS_ASSERT(p->n_asks > 0 && !ask->is_over);
    p->n_asks--;
    p->n_posted++;
    ask->conn = NULL;
    ask->is_over = true;
    wk_tier_post(p->conf.asks, &ask->io);
}

static void end_slot(struct wk_conn *c, struct wk_slot *s)
{
    struct wk_peer_ask *ask = s->ask;

    if (c->sending == s)
        c->sending = NULL;
    *s = (struct wk_slot){.state = WK_SLOT_FREE};
    post_over(c->p, ask);
}

bool wk_serve_ask(struct wk_conn *c, const uint8_t *body)
{
    struct wk_peers *p = c->p;
    struct wk_peer_ask *ask;
    struct wk_slot *s = NULL;

    for (uint32_t i = 0; s == NULL && i < WK_PEER_INFLIGHT; i++) {
        if (c->slot[i].state == WK_SLOT_FREE)
            s = &c->slot[i];
    }
    if (s == NULL || c->out.len - c->out_at > WK_PEER_OUT_BYTES)
        return false; /* more questions than allowed, or answers that it does not read */
    if (wk_peer_ask_decode(body, &c->head, &p->conf.ident, &ask) != WK_PEER_WIRE_OK)
        return false;
    if (p->n_asks == WK_PEER_ASKS_MAX) { /* the store does not keep up: then we have nothing */
        wk_peer_put_count(&c->out, ask->wants_bytes ? WK_PEER_GOT : WK_PEER_FOUND, c->head.id, 0);
        wk_peers_ask_free(ask);
        return true;
    }
    ask->conn = c;
    *s = (struct wk_slot){.state = WK_SLOT_ASKED, .ask = ask, .id = c->head.id};
    p->n_asks++;
    p->n_posted++;
    wk_tier_post(p->conf.asks, &ask->io);
    return true;
}

void wk_serve_answered(struct wk_peers *p, struct wk_peer_ask *ask)
{
    struct wk_conn *c = ask->conn;
    struct wk_slot *s = NULL;

    PS_ASSERT(ask->io.n_found <= ask->io.n_part);
    if (c == NULL) {
        post_over(p, ask);
        return;
    }
    for (uint32_t i = 0; s == NULL && i < WK_PEER_INFLIGHT; i++) {
        if (c->slot[i].ask == ask)
            s = &c->slot[i];
    }
    PS_ASSERT(s != NULL && s->state == WK_SLOT_ASKED);
    if (ask->wants_bytes) {
        s->state = WK_SLOT_ANSWERED;
        s->order = ++p->order;
        return;
    }
    wk_peer_put_count(&c->out, WK_PEER_FOUND, s->id, ask->io.n_found);
    end_slot(c, s);
}

static struct wk_slot *oldest(struct wk_conn *c)
{
    struct wk_slot *best = NULL;

    for (uint32_t i = 0; i < WK_PEER_INFLIGHT; i++) {
        struct wk_slot *s = &c->slot[i];

        if (s->state == WK_SLOT_ANSWERED && (best == NULL || s->order < best->order))
            best = s;
    }
    return best;
}

static void send_piece(struct wk_conn *c, struct wk_slot *s)
{
    const struct wk_tier_part *part = &s->ask->io.part[s->part];
    const uint32_t item_bytes = c->p->conf.ident.item_bytes[part->key.group];
    struct wk_peer_piece piece = {.part = s->part, .off = s->off};

    PS_ASSERT(part->buf != NULL && s->off < item_bytes);
    if (s->off == 0)
        s->sum = ps_hash64(part->buf, item_bytes, 0);
    piece.sum = s->sum;
    piece.n_bytes = ps_min_u32(item_bytes - s->off, WK_PEER_PIECE_BYTES);
    wk_peer_put_piece(&c->out, s->id, &piece);
    c->out_lead = c->out.len;
    c->bulk = part->buf + s->off;
    c->bulk_left = piece.n_bytes;
    s->off += piece.n_bytes;
    if (s->off == item_bytes) {
        s->off = 0;
        s->part++;
    }
}

/* Out and bulk are empty, so the last piece that was queued is with the kernel. */
bool wk_serve_next(struct wk_conn *c)
{
    struct wk_slot *s = c->sending;

    PS_ASSERT(c->bulk_left == 0 && c->out_at == c->out.len);
    if (s != NULL && s->part == s->ask->io.n_found)
        end_slot(c, s);
    else if (s != NULL)
        send_piece(c, s);
    if (c->sending == NULL) {
        s = oldest(c);
        if (s == NULL)
            return false;
        c->sending = s;
        wk_peer_put_count(&c->out, WK_PEER_GOT, s->id, s->ask->io.n_found);
    }
    return true;
}

void wk_serve_lost(struct wk_conn *c)
{
    for (uint32_t i = 0; i < WK_PEER_INFLIGHT; i++) {
        struct wk_slot *s = &c->slot[i];

        if (s->state == WK_SLOT_ANSWERED)
            end_slot(c, s);
        else if (s->state == WK_SLOT_ASKED)
            s->ask->conn = NULL;
        s->state = WK_SLOT_FREE;
    }
    c->sending = NULL;
}

void wk_peers_answer(struct wk_peers *p, struct wk_peer_ask *ask)
{
    PS_ASSERT(!ask->is_over && ask->io.n_found <= ask->io.n_part);
    wk_tier_post(&p->answers, &ask->io);
}
