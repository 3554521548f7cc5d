#include "worker/self_bench.h"

#include <stdlib.h>
#include <string.h>

#include "common/test.h"

static void it_prints_a_positive_figure_for_every_row(void **state)
{
    char *text = NULL, *at;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    uint32_t n_rows = 0;

    (void)state;
    assert_non_null(f);
    assert_int_equal(wk_self_bench(f, 40, 640), 0);
    (void)fclose(f);
    assert_non_null(strstr(text, "rows  context"));
    for (at = text; (at = strchr(at, '\n')) != NULL; at++) {
        uint32_t rows, context;
        double mean;

        if (sscanf(at + 1, "%u %u %lf", &rows, &context, &mean) == 3) {
            assert_true(mean > 0);
            n_rows++;
        }
    }
    assert_int_equal(n_rows, 4);
    at = strstr(text, "insert ");
    assert_non_null(at);
    assert_true(strtod(at + 7, NULL) > 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_prints_a_positive_figure_for_every_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
