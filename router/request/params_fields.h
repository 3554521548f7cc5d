#pragma once

/*
 * The request fields of each dialect, as tables for rt_check_object: the dialect's own, then the common.
 */

#include "router/request/params.h"

enum { RT_PARAMS_N_TABLES = 2 };

const struct rt_fields *rt_params_tables(enum rt_dialect d);
