#pragma once

/*
 * Message preparation: the `messages` of a chat request, checked and written as the template wants them.
 *
 * Pure functions, any thread. Roles come out in lower case (developer as system where the template has
 * no such role, function as tool), content as a string or a list of text parts, the arguments of
 * tool calls as an object or a string, reasoning under the names that transformers fills. Members
 * that are null count as absent; unknown members pass through; key order is kept. The first thing
 * that is wrong, in document order, is reported as data.
 */

#include "common/base.h"
#include "common/buf.h"
#include "common/json/json.h"
#include "common/text/template.h"

enum {
    RT_MSG_OK,
    RT_MSG_E_BAD, /* fail is filled; out is as before */
};

enum { RT_MSG_MAX = 65536 };

struct rt_msg_fail {
    const char *code; /* of the error table: "invalid_type", "unsupported_content", ... */
    char param[96];   /* "messages[2].content[0].type" */
    char text[160];
};

/* messages: the member's value, NULL when the request has none. Appends a JSON array. */
PS_MUST int rt_msg_prepare(const struct ps_json *messages, const struct ps_tmpl_caps *caps,
                           struct ps_buf *out, struct rt_msg_fail *fail);
