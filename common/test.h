#pragma once

/*
 * For unit tests only: cmocka with the headers it wants before it, and a check for code that must
 * abort. Test programs are single-threaded when they call ps_test_dies, because it forks.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base.h"

/* Runs fn(ud) in a child with stderr in a pipe; out gets what it said (NUL-terminated, cut). */
static inline int ps_test_run(void (*fn)(void *ud), void *ud, char *out, size_t out_bytes)
{
    struct rlimit no_core = {0, 0};
    size_t n = 0;
    ssize_t got;
    pid_t pid;
    int fds[2], status;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka would turn it into a failed test */
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(fds[1], STDERR_FILENO);
        fn(ud);
        _exit(0);
    }
    close(fds[1]);
    while (n + 1 < out_bytes && (got = read(fds[0], out + n, out_bytes - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* fn must abort with a line that holds text. */
static inline void ps_test_dies(void (*fn)(void *ud), void *ud, const char *text)
{
    char said[1024];
    int status = ps_test_run(fn, ud, said, sizeof(said));

    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || strstr(said, text) == NULL)
        fail_msg("expected an abort that says \"%s\"; status %d, said \"%s\"", text, status, said);
}
