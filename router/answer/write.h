#pragma once

/*
 * The bytes of answers: JSON objects and SSE events of the two dialects, key order fixed.
 *
 * Pure appenders over a call's state, loop thread. What they wrote of a choice is marked there (opened,
 * closed), its text and tokens are taken. Clients compare and concatenate these bytes: every rule
 * about them is a golden line in write_test.c.
 */

#include "router/answer/call.h"

/* Made once when the answer begins: what every event starts with. */
const char *rt_write_chunk_head(struct rt_call *c);

/* New events of a choice: its first chunk, its text so far, and when it is over its finish chunk. */
void rt_chat_add_events(struct ps_buf *out, struct rt_choice *ch);
void rt_completion_add_events(struct ps_buf *out, struct rt_choice *ch);
/* The event with empty choices that carries usage, when it was asked for. */
void rt_write_usage_event(struct ps_buf *out, struct rt_call *c);
/* Whole answers. */
void rt_chat_add_answer(struct ps_buf *out, struct rt_call *c);
void rt_completion_add_answer(struct ps_buf *out, struct rt_call *c);

/* Shared pieces. */
/* A whole answer up to and with its usage; the object is left open. */
void rt_write_answer_start(struct ps_buf *out, struct rt_call *c, const char *object,
                           void (*add_choice)(struct ps_buf *out, struct rt_choice *ch));
void rt_write_usage(struct ps_buf *out, const struct rt_call *c, uint64_t n_completion);
/* The end of an event: running usage when asked for, and the blank line. first: of its choice. */
void rt_write_event_tail(struct ps_buf *out, struct rt_call *c, bool first);
void rt_write_ids(struct ps_buf *out, const uint32_t *ids, uint32_t n);
void rt_write_logprob(struct ps_buf *out, float v); /* shortest; minus infinity as -9999.0 */
void rt_write_token(struct ps_buf *out, const struct rt_call *c, uint32_t id);
void rt_write_prompt_logprobs(struct ps_buf *out, const struct rt_call *c,
                              const struct rt_prompt *p);
void rt_write_end_of_choice(struct ps_buf *out, const struct rt_choice *ch);
