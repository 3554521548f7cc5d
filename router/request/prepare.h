#pragma once

/*
 * From a request's body to prompts of token ids: JSON, checks, chat template, tokens, lengths.
 *
 * Touches nothing but the call and immutable facts of the router: any thread. What the client did wrong
 * ends up in the call's fail.
 */

#include "router/answer/call.h"

void rt_prepare_call(struct rt_call *c, struct ps_tok_ctx *tok);

/*
 * Renders messages (checked here) and appends the text. Shared with /tokenize: only the template's
 * fields of p are used.
 */
PS_MUST bool rt_prepare_chat_text(const struct rt_params *p, uint64_t now_s, struct ps_buf *out,
                                  struct rt_fail *f);
/* Encodes; too many ids for the context are E11 with the given field. max_ids 0: no limit. */
PS_MUST bool rt_prepare_encode(const struct rt_params *p, struct ps_tok_ctx *tok, const char *s,
                               size_t len, bool special, uint32_t max_ids, struct ps_tok_ids *out,
                               struct rt_fail *f);
/* The sentence clients match on; see E11, E12, E35. */
void rt_fail_context(struct rt_fail *f, enum rt_fail_row row, const char *param, uint32_t context,
                     uint64_t n_out, uint64_t n_prompt, bool at_least);
