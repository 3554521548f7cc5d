#include "worker/model/share.h"

#include "common/rng.h"
#include "common/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { N_BYTES = 10000, DIGEST = 4711 };

struct world {
    uint64_t key; /* random: nobody else's registry is touched */
    char registry[96];
    uint32_t n_fills;
    int tell; /* a pipe that fill writes a byte to, or -1 */
};

static uint64_t fill(uint8_t *dst, size_t n_bytes, void *ud)
{
    struct world *w = ud;

    for (size_t i = 0; i < n_bytes; i++)
        dst[i] = (uint8_t)(i * 7);
    w->n_fills++;
    if (w->tell >= 0)
        PS_ASSERT(write(w->tell, "f", 1) == 1);
    return DIGEST;
}

static int open_share(struct world *w, struct wk_share *s)
{
    return wk_share_open(s, w->key, N_BYTES, fill, w);
}

static bool is_filled(const struct wk_share *s)
{
    bool same = s->n_bytes == N_BYTES && s->digest == DIGEST;

    for (size_t i = 0; i < N_BYTES && same; i++)
        same = s->data[i] == (uint8_t)(i * 7);
    return same;
}

static void name_registry(struct world *w)
{
    (void)snprintf(w->registry, sizeof(w->registry), "/dev/shm/penstock-%ld/weights-%016lx",
                   (long)getuid(), (unsigned long)w->key);
}

static int set_up(void **state)
{
    struct world *w = ps_calloc(1, sizeof(*w));

    ps_random_bytes(&w->key, sizeof(w->key));
    w->tell = -1;
    name_registry(w);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    (void)unlink(w->registry);
    ps_free(w);
    return 0;
}

static void write_registry(const struct world *w, const char *text)
{
    int fd = open(w->registry, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

/* In a child; exit status 0 when it found a share of another process, 1 when it filled its own. */
static void open_in_child(void *ud)
{
    struct world *w = ud;
    struct wk_share s;
    int r = open_share(w, &s);

    _exit(r == 0 && is_filled(&s) ? (s.found ? 0 : 1) : 2);
}

static int child_result(struct world *w)
{
    char said[256];
    int status = ps_test_run(open_in_child, w, said, sizeof(said));

    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_second_process_finds_the_firsts(void **state)
{
    struct world *w = *state;
    struct wk_share s;

    assert_int_equal(open_share(w, &s), 0);
    assert_true(!s.found && is_filled(&s) && w->n_fills == 1);
    assert_int_equal(child_result(w), 0);
    assert_int_equal(child_result(w), 0); /* also when one that found it is gone again */
    wk_share_close(&s);
    assert_null(s.data);
}

static void a_dead_holder_is_skipped(void **state)
{
    struct world *w = *state;
    struct wk_share s;

    assert_int_equal(child_result(w), 1);
    assert_int_equal(open_share(w, &s), 0);
    assert_true(!s.found && is_filled(&s) && w->n_fills == 1);
    wk_share_close(&s);
}

static void what_is_shared_cannot_be_written(void **state)
{
    struct world *w = *state;
    struct wk_share s;
    char path[64];
    int fd;

    assert_int_equal(open_share(w, &s), 0);
    assert_true(mmap(NULL, N_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0) == MAP_FAILED);
    assert_int_equal(errno, EPERM);
    assert_true(pwrite(s.fd, "x", 1, WK_SHARE_PAGE) < 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s.fd);
    fd = open(path, O_RDWR | O_CLOEXEC); /* whoever opens it anew is bound by the seals as well */
    assert_true(fd >= 0 && pwrite(fd, "x", 1, WK_SHARE_PAGE) < 0 && ftruncate(fd, 0) < 0);
    (void)close(fd);
    assert_true(is_filled(&s));
    wk_share_close(&s);
}

static void another_key_or_size_is_another_share(void **state)
{
    struct world *w = *state, other = *w;
    struct wk_share a, b, c;
    char line[64];

    assert_int_equal(open_share(w, &a), 0);
    other.key++;
    assert_int_equal(open_share(&other, &b), 0);
    assert_false(b.found);
    /* A line of the right form that leads to another key's memory is not believed. */
    (void)snprintf(line, sizeof(line), "%ld %d\n", (long)getpid(), b.fd);
    write_registry(w, line);
    assert_int_equal(wk_share_open(&c, w->key, N_BYTES, fill, w), 0);
    assert_false(c.found);
    wk_share_close(&c);
    (void)snprintf(line, sizeof(line), "%ld %d\n", (long)getpid(), a.fd);
    write_registry(w, line);
    assert_int_equal(wk_share_open(&c, w->key, N_BYTES - 1, fill, w), 0);
    assert_false(c.found);
    wk_share_close(&a);
    wk_share_close(&b);
    wk_share_close(&c);
    name_registry(&other);
    (void)unlink(other.registry);
}

static void a_registry_that_lies_is_survived(void **state)
{
    struct world *w = *state;
    struct wk_share s;
    char text[256];
    int fifo[2], loose;

    assert_int_equal(pipe(fifo), 0); /* opening its reading end anew would wait for a writer */
    loose = memfd_create("loose", MFD_CLOEXEC);
    assert_int_equal(ftruncate(loose, N_BYTES + WK_SHARE_PAGE), 0);
    (void)snprintf(text, sizeof(text), "1 0\n%ld %d\n%ld %d\n-5 -5\n999999999 3\n%ld 100000\nx y\n",
                   (long)getpid(), fifo[0], (long)getpid(), loose, (long)getpid());
    write_registry(w, text);
    assert_int_equal(open_share(w, &s), 0);
    assert_true(!s.found && is_filled(&s));
    assert_int_equal(child_result(w), 0); /* and the file is in order again */
    wk_share_close(&s);
    (void)close(fifo[0]);
    (void)close(fifo[1]);
    (void)close(loose);
}

static void a_full_registry_begins_again(void **state)
{
    struct world *w = *state;
    struct ps_buf text = PS_BUF_INIT;
    struct wk_share a, b;
    struct stat st;

    assert_int_equal(open_share(w, &a), 0);
    ps_buf_addf(&text, "%ld %d\n", (long)getpid(), a.fd);
    while (text.len < 4090)
        ps_buf_add_str(&text, "999999999 3\n");
    write_registry(w, text.data);
    assert_int_equal(open_share(w, &b), 0);
    assert_true(b.found);
    assert_int_equal(stat(w->registry, &st), 0);
    assert_true(st.st_size < 64);
    assert_int_equal(child_result(w), 0);
    wk_share_close(&a);
    wk_share_close(&b);
    ps_buf_fini(&text);
}

static void the_last_user_removes_the_registry(void **state)
{
    struct world *w = *state;
    struct wk_share a, b;

    assert_int_equal(open_share(w, &a), 0);
    assert_int_equal(open_share(w, &b), 0);
    assert_true(b.found);
    wk_share_close(&a);
    assert_int_equal(access(w->registry, F_OK), 0);
    assert_int_equal(child_result(w), 0); /* through b, though a filled it */
    wk_share_close(&b);
    assert_int_equal(access(w->registry, F_OK), -1);
    wk_share_close(&b); /* closing again is nothing */
}

static void processes_that_start_together_fill_once(void **state)
{
    enum { N = 4 };
    struct world *w = *state;
    int done[2], fills[2], status, n_fills = 0;
    pid_t pid[N];
    char c;

    assert_int_equal(pipe(done), 0);
    assert_int_equal(pipe(fills), 0);
    w->tell = fills[1];
    for (int i = 0; i < N; i++) {
        pid[i] = fork();
        assert_true(pid[i] >= 0);
        if (pid[i] == 0) {
            struct wk_share s;
            bool ok = open_share(w, &s) == 0 && is_filled(&s);

            (void)close(done[1]);
            ok = ok && write(fills[1], "o", 1) == 1; /* opened */
            ok = read(done[0], &c, 1) == 0 && ok;    /* holds until the parent lets go */
            _exit(ok ? 0 : 1);
        }
    }
    (void)close(fills[1]);
    for (int n_open = 0; n_open < N;) {
        assert_int_equal(read(fills[0], &c, 1), 1);
        n_open += c == 'o';
        n_fills += c == 'f';
    }
    (void)close(done[1]);
    for (int i = 0; i < N; i++) {
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(n_fills, 1);
    (void)close(done[0]);
    (void)close(fills[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_second_process_finds_the_firsts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dead_holder_is_skipped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_shared_cannot_be_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_key_or_size_is_another_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_registry_that_lies_is_survived, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_registry_begins_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_last_user_removes_the_registry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(processes_that_start_together_fill_once, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
