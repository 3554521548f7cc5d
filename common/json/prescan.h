#pragma once

/*
 * The pass over raw JSON bytes before jansson sees them. Internal to common/json.
 *
 * Checks the whole grammar but the shape of long numbers, the limits and UTF-8, without recursion,
 * and rewrites the few things jansson refuses but the contract allows. Afterwards jansson can fail
 * only on a number that no double can hold.
 *
 * Rewrites, all in a copy that is made only when one is needed:
 * - an integer beyond int64 becomes a string of MARK 'I' and its digits, exact;
 * - a string value that itself begins with MARK gets MARK 'S' in front, so that the first is unique;
 * - a lone surrogate escape, and a NUL in a key, become U+FFFD.
 */

#include "common/json/json.h"

enum { PS_JSON_MARK = 0x01 };

/* An integer (token text) as int64, or false when it does not fit. */
bool ps_json_fits_int64(const char *text, size_t len);

/* *out_copied: copy holds the text to parse; else the text itself is fit to parse. */
PS_MUST int ps_json_prescan(const char *text, size_t len, const struct ps_json_limits *lim,
                            struct ps_buf *copy, bool *out_copied, size_t *out_err_off);
