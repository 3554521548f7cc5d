#pragma once

/*
 * Reading whole small files of a model directory, with a size limit.
 */

#include "common/base.h"
#include "common/buf.h"

enum {
    PS_FILE_OK,
    PS_FILE_E_NONE, /* does not exist */
    PS_FILE_E_BIG,  /* larger than the limit */
};

/* Appends the file dir/name to out. Negative errno for anything unexpected. */
PS_MUST int ps_file_read(const char *dir, const char *name, size_t max_bytes, struct ps_buf *out);
