#pragma once

/*
 * Chat templates: the model's Jinja template, rendered by textkit (minijinja) as transformers would.
 *
 * Loaded from the model directory only (chat_template.jinja wins over tokenizer_config.json); a
 * request can never carry a template, because a hostile one can exhaust the process. Immutable after
 * load and shared by all threads. At load the template is probed once with harmless messages, so
 * that its abilities are facts and not guesses.
 */

#include "common/base.h"
#include "common/buf.h"

struct tm;

enum {
    PS_TMPL_OK,
    PS_TMPL_E_NONE,   /* the model has no chat template */
    PS_TMPL_E_BAD,    /* it does not compile or fails its probe: sentence in err */
    PS_TMPL_E_RAISED, /* the template refused these messages: its own text in out (client's 400) */
    PS_TMPL_E_RENDER, /* it failed on this context: text in out (client's 400) */
    PS_TMPL_E_LIMIT,  /* fuel or output limit */
};

struct ps_tmpl;

struct ps_tmpl_caps {
    bool content_parts;  /* iterates over message content: give it the list of parts */
    bool parts_only;     /* and does not render a string: wrap that into a list */
    bool null_content;   /* renders content null beside tool_calls (else: give it "") */
    bool args_object;    /* tool_calls[].function.arguments as a parsed object (else: string) */
    bool developer_role; /* renders role "developer" itself */
};

PS_MUST int ps_tmpl_load(struct ps_tmpl **out, const char *dir, struct ps_buf *err);
/*
 * From memory: config is tokenizer_config.json (bos/eos/special tokens), may be NULL. src NULL: the
 * template is config's chat_template.
 */
PS_MUST int ps_tmpl_create(struct ps_tmpl **out, const char *src, size_t len, const char *config,
                           size_t config_len, struct ps_buf *err);
void ps_tmpl_destroy(struct ps_tmpl *t);
const struct ps_tmpl_caps *ps_tmpl_caps(const struct ps_tmpl *t);
const char *ps_tmpl_source(const struct ps_tmpl *t);

/*
 * messages_json, tools_json (NULL: none), documents_json (NULL) are JSON arrays already prepared by the caller;
 * kwargs_json (NULL) is an object whose members become template variables (enable_thinking, ...);
 * it cannot replace messages, tools, add_generation_prompt or the token variables. now: local time
 * for strftime_now. The text is appended to out.
 */
PS_MUST int ps_tmpl_render(const struct ps_tmpl *t, const char *messages_json, size_t messages_len,
                           const char *tools_json, const char *documents_json,
                           const char *kwargs_json, bool add_generation_prompt,
                           const struct tm *now, struct ps_buf *out);
