#include "common/net/wheel.h"

void ps_wheel_init(struct ps_wheel *w, uint32_t step_ms, uint64_t now_ms)
{
    PS_ASSERT(step_ms > 0);
    for (uint32_t i = 0; i < PS_WHEEL_SLOTS; i++)
        w->slots[i].prev = w->slots[i].next = &w->slots[i];
    w->step_ms = step_ms;
    w->slot_no = now_ms / step_ms;
}

static void unlink_node(struct ps_wheel_node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
}

static void link_node(struct ps_wheel *w, struct ps_wheel_node *n)
{
    /* The first slot that begins at or after due. One that is rounds away is looked at in each round. */
    uint64_t slot = ps_div_up_u64(n->due_ms, w->step_ms);
    struct ps_wheel_node *head;

    slot = ps_max_u64(slot, w->slot_no);
    head = &w->slots[slot % PS_WHEEL_SLOTS];
    n->slot_ms = slot * w->step_ms;
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}

void ps_wheel_arm(struct ps_wheel *w, struct ps_wheel_node *n, uint64_t due_ms)
{
    n->due_ms = due_ms;
    if (n->next != NULL) {
        if (n->slot_ms <= due_ms)
            return; /* it wakes before, and is hung up anew then */
        unlink_node(n);
    }
    link_node(w, n);
}

void ps_wheel_disarm(struct ps_wheel_node *n)
{
    if (n->next != NULL)
        unlink_node(n);
}

void ps_wheel_run(struct ps_wheel *w, uint64_t now_ms, ps_wheel_fn fn, void *ud)
{
    uint64_t now_slot = now_ms / w->step_ms;

    /* In one round every slot is seen; a long sleep need not walk empty rounds. */
    if (now_slot >= w->slot_no + PS_WHEEL_SLOTS)
        w->slot_no = now_slot + 1 - PS_WHEEL_SLOTS;
    while (w->slot_no <= now_slot) {
        struct ps_wheel_node *head = &w->slots[w->slot_no % PS_WHEEL_SLOTS];
        struct ps_wheel_node batch;

        w->slot_no++;
        if (head->next == head)
            continue;
        batch = *head; /* moved aside: what fn arms goes to later slots, not into this walk */
        batch.prev->next = batch.next->prev = &batch;
        head->prev = head->next = head;
        while (batch.next != &batch) {
            struct ps_wheel_node *n = batch.next;

            unlink_node(n);
            if (n->due_ms <= now_ms)
                fn(n, ud);
            else
                link_node(w, n);
        }
    }
}
