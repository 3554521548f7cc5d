#include "router/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BAD  "invalid_request_error"
#define OVER "overloaded_error"
#define SRV  "server_error"
#define LATE "timeout_error"

static const struct rt_fail_def defs[RT_E_N_ROWS] = {
    [RT_E_NONE] = {500, SRV, "internal_error", true, -1, 0},
    [RT_E1_INVALID_JSON] = {400, BAD, "invalid_json", false, -1, 0},
    [RT_E2_INVALID_UTF8] = {400, BAD, "invalid_utf8", false, -1, 0},
    [RT_E3_NOT_OBJECT] = {400, BAD, "invalid_json", false, -1, 0},
    [RT_E4_MISSING] = {400, BAD, "missing_required_parameter", false, -1, 0},
    [RT_E5_TYPE] = {400, BAD, "invalid_type", false, -1, 0},
    [RT_E6_VALUE] = {400, BAD, "invalid_value", false, -1, 0},
    [RT_E7_CONFLICT] = {400, BAD, "conflicting_parameters", false, -1, 0},
    [RT_E8_UNSUPPORTED] = {400, BAD, "unsupported_parameter", false, -1, 0},
    [RT_E8_UNSUPPORTED_VALUE] = {400, BAD, "unsupported_value", false, -1, 0},
    [RT_E10_MODEL] = {404, "not_found_error", "model_not_found", false, -1, 0},
    [RT_E11_PROMPT_TOO_LONG] = {400, BAD, "context_length_exceeded", false, -1, 0},
    [RT_E12_TOO_MANY_TOKENS] = {400, BAD, "context_length_exceeded", false, -1, 0},
    [RT_E13_BODY] = {413, BAD, "request_too_large", true, -1, 0},
    [RT_E14_URI] = {414, BAD, "uri_too_long", true, -1, 0},
    [RT_E15_HEADERS] = {431, BAD, "headers_too_large", true, -1, 0},
    [RT_E16_MEDIA_TYPE] = {415, BAD, "unsupported_media_type", false, -1, 0},
    [RT_E16_ENCODING] = {415, BAD, "unsupported_content_encoding", false, -1, 0},
    [RT_E17_BAD_HTTP] = {400, BAD, "bad_http_request", true, -1, 0},
    [RT_E18_VERSION] = {505, BAD, "http_version_not_supported", true, -1, 0},
    [RT_E19_TE] = {501, BAD, "not_implemented", true, -1, 0},
    [RT_E20_EXPECT] = {417, BAD, "expectation_failed", true, -1, 0},
    [RT_E21_KEY] = {401, "authentication_error", "invalid_api_key", false, -1, 0},
    [RT_E22_FORBIDDEN] = {403, "permission_error", "insufficient_permissions", false, -1, 0},
    [RT_E23_UNKNOWN_URL] = {404, "not_found_error", "unknown_url", false, -1, 0},
    [RT_E24_METHOD] = {405, BAD, "method_not_allowed", false, -1, 0},
    [RT_E25_NOT_IMPLEMENTED] = {501, BAD, "unsupported_endpoint", false, 0, 0},
    [RT_E26_RATE] = {429, "rate_limit_error", "rate_limit_exceeded", false, -1, 1},
    [RT_E27_QUEUE_FULL] = {429, OVER, "queue_full", false, -1, 1},
    [RT_E28_QUEUE_TIMEOUT] = {503, OVER, "queue_timeout", false, -1, 1},
    [RT_E29_DEADLINE] = {504, LATE, "request_timeout", false, 0, 0},
    [RT_E30_CLIENT_TIMEOUT] = {408, LATE, "client_timeout", true, -1, 0},
    [RT_E31_NO_WORKER] = {503, SRV, "no_worker_available", false, -1, 5},
    [RT_E32_WORKER_LOST] = {502, SRV, "worker_lost", false, -1, 1},
    [RT_E34_ENGINE] = {500, SRV, "engine_error", false, -1, 0},
    [RT_E35_TOO_LONG_FOR_KV] = {400, BAD, "context_length_exceeded", false, -1, 0},
    [RT_E36_NUMERICAL] = {500, SRV, "numerical_error", false, 0, 0},
    [RT_E37_DRAINING] = {503, SRV, "draining", true, -1, 5},
    [RT_E38_INTERNAL] = {500, SRV, "internal_error", true, -1, 0},
    [RT_E42_CONTENT] = {400, BAD, "unsupported_content", false, -1, 0},
    [RT_E43_TEMPLATE] = {400, BAD, "chat_template_error", false, -1, 0},
    [RT_E44_NO_TEMPLATE] = {400, BAD, "no_chat_template", false, -1, 0},
};

const struct rt_fail_def *rt_fail_def(enum rt_fail_row row)
{
    PS_ASSERT(row < RT_E_N_ROWS && defs[row].http != 0);
    return &defs[row];
}

void rt_fail_set(struct rt_fail *f, enum rt_fail_row row, const char *param, const char *fmt, ...)
{
    va_list ap;

    *f = (struct rt_fail){.row = row};
    (void)snprintf(f->param, sizeof(f->param), "%s", param != NULL ? param : "");
    va_start(ap, fmt);
    (void)vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
}
