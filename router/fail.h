#pragma once

/*
 * What a client did wrong, or what we could not do for it: data, not a code.
 *
 * The stage that finds a failure fills one of these; router/ask.c renders it. The error table is in
 * fail.c: status, type, code, retry and close all come from there, so a row is written once. Rows keep
 * their numbers (E5, E32): tests and comments name them, and one that goes leaves a gap.
 */

#include "common/base.h"

enum rt_fail_row {
    RT_E_NONE,
    RT_E1_INVALID_JSON,
    RT_E2_INVALID_UTF8,
    RT_E3_NOT_OBJECT,
    RT_E4_MISSING,
    RT_E5_TYPE,
    RT_E6_VALUE,
    RT_E7_CONFLICT,
    RT_E8_UNSUPPORTED,
    RT_E8_UNSUPPORTED_VALUE,
    RT_E10_MODEL,
    RT_E11_PROMPT_TOO_LONG,
    RT_E12_TOO_MANY_TOKENS,
    RT_E13_BODY,
    RT_E14_URI,
    RT_E15_HEADERS,
    RT_E16_MEDIA_TYPE,
    RT_E16_ENCODING,
    RT_E17_BAD_HTTP,
    RT_E18_VERSION,
    RT_E19_TE,
    RT_E20_EXPECT,
    RT_E21_KEY,
    RT_E22_FORBIDDEN,
    RT_E23_UNKNOWN_URL,
    RT_E24_METHOD,
    RT_E25_NOT_IMPLEMENTED,
    RT_E26_RATE,
    RT_E27_QUEUE_FULL,
    RT_E28_QUEUE_TIMEOUT,
    RT_E29_DEADLINE,
    RT_E30_CLIENT_TIMEOUT,
    RT_E31_NO_WORKER,
    RT_E32_WORKER_LOST,
    RT_E34_ENGINE,
    RT_E35_TOO_LONG_FOR_KV,
    RT_E36_NUMERICAL,
    RT_E37_DRAINING,
    RT_E38_INTERNAL,
    RT_E42_CONTENT,
    RT_E43_TEMPLATE,
    RT_E44_NO_TEMPLATE,
    RT_E_N_ROWS
};

struct rt_fail_def {
    uint16_t http;
    const char *type, *code;
    bool close;
    int8_t should_retry;    /* -1: no x-should-retry header, 0: false, 1: true */
    uint16_t retry_after_s; /* default; 0: none */
};

struct rt_fail {
    enum rt_fail_row row;
    char param[96]; /* "": null */
    char text[480];
    uint16_t retry_after_s; /* overrides the row's */
    const char *allow;      /* E24: the allow list */
};

const struct rt_fail_def *rt_fail_def(enum rt_fail_row row);
PS_PRINTF(4, 5)
void rt_fail_set(struct rt_fail *f, enum rt_fail_row row, const char *param, const char *fmt, ...);
