#include "common/uring/uring.h"

#include "common/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

enum { DEPTH = 8, BLOCK = 8192, N_BLOCKS = 64 };

/* The fallback gets the same tests; where the kernel refuses io_uring only the fallback is tested. */
static int make(void **state, enum ps_uring_kind kind)
{
    struct ps_uring *u = NULL;
    int r = ps_uring_create(&u, DEPTH, kind);

    if (r == PS_URING_E_REFUSED) {
        print_message("# io_uring is refused here\n");
        r = ps_uring_create(&u, DEPTH, PS_URING_THREADS);
    }
    *state = u;
    return r;
}

static int make_ring(void **state)
{
    return make(state, PS_URING_RING);
}

static int make_threads(void **state)
{
    return make(state, PS_URING_THREADS);
}

static int unmake(void **state)
{
    return ps_uring_destroy(*state, 1000);
}

static int temp_file(void)
{
    char path[] = "/tmp/uring_test.XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    return fd;
}

struct block {
    struct iovec iov[2];
    uint8_t bytes[BLOCK];
    uint32_t n_done;
    int32_t res;
};

static void block_begin(struct ps_uring *u, struct block *b, int fd, enum ps_uring_dir dir,
                        uint64_t at)
{
    struct ps_uring_op op = {fd, dir, b->iov, 2, at, b};

    b->iov[0] = (struct iovec){b->bytes, 100};
    b->iov[1] = (struct iovec){b->bytes + 100, BLOCK - 100};
    assert_int_equal(ps_uring_submit(u, &op), PS_URING_OK);
}

static void reap_some(struct ps_uring *u)
{
    struct ps_uring_done done[3];
    uint32_t n = ps_uring_wait(u, 5000, done, 3);

    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        struct block *b = done[i].ud;

        b->n_done++;
        b->res = done[i].res;
    }
}

static void move_all(struct ps_uring *u, struct block *blocks, int fd, enum ps_uring_dir dir)
{
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        while (ps_uring_n_busy(u) == DEPTH)
            reap_some(u);
        blocks[i].n_done = 0;
        block_begin(u, &blocks[i], fd, dir, (uint64_t)(N_BLOCKS - 1 - i) * BLOCK);
    }
    while (ps_uring_n_busy(u) > 0)
        reap_some(u);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        assert_int_equal(blocks[i].n_done, 1);
        assert_int_equal(blocks[i].res, BLOCK);
    }
}

static void what_was_written_is_read_each_operation_once(void **state)
{
    struct block *blocks = ps_calloc(N_BLOCKS, sizeof(*blocks));
    int fd = temp_file();

    for (uint32_t i = 0; i < N_BLOCKS; i++)
        memset(blocks[i].bytes, (int)i + 1, BLOCK);
    move_all(*state, blocks, fd, PS_URING_WRITE);
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        memset(blocks[i].bytes, 0, BLOCK);
    move_all(*state, blocks, fd, PS_URING_READ);
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        for (uint32_t j = 0; j < BLOCK; j++)
            assert_int_equal(blocks[i].bytes[j], i + 1);
    }
    close(fd);
    ps_free(blocks);
}

static void end_of_file_is_a_short_read_and_an_error_is_its_errno(void **state)
{
    struct block *b = ps_calloc(1, sizeof(*b));
    int fd = temp_file(), gone = dup(fd);

    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    block_begin(*state, b, fd, PS_URING_READ, 0);
    reap_some(*state);
    assert_int_equal(b->res, 3);
    block_begin(*state, b, fd, PS_URING_READ, 4096);
    reap_some(*state);
    assert_int_equal(b->res, 0);
    close(gone);
    block_begin(*state, b, gone, PS_URING_READ, 0);
    reap_some(*state);
    assert_int_equal(b->res, -EBADF);
    close(fd);
    ps_free(b);
}

static void more_than_depth_is_refused_and_nothing_changes(void **state)
{
    struct block *blocks = ps_calloc(DEPTH + 1, sizeof(*blocks));
    struct ps_uring_op op = {0, PS_URING_READ, blocks[0].iov, 1, 0, &blocks[0]};
    int fd = temp_file();

    for (uint32_t i = 0; i < DEPTH; i++)
        block_begin(*state, &blocks[i], fd, PS_URING_READ, 0);
    assert_int_equal(ps_uring_submit(*state, &op), PS_URING_E_FULL);
    assert_int_equal(ps_uring_n_busy(*state), DEPTH);
    while (ps_uring_n_busy(*state) > 0)
        reap_some(*state);
    close(fd);
    ps_free(blocks);
}

static void *poke_main(void *ud)
{
    ps_uring_poke(ud);
    return NULL;
}

static void poke_from_another_thread_ends_a_wait_before_or_in_it(void **state)
{
    struct ps_uring_done done[1];
    pthread_t t;

    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(pthread_create(&t, NULL, poke_main, *state), 0);
        assert_int_equal(ps_uring_wait(*state, 60000, done, 1), 0); /* the test's limit is 20 s */
        assert_int_equal(pthread_join(t, NULL), 0);
    }
    assert_int_equal(ps_uring_wait(*state, 0, done, 1), 0);
    assert_int_equal(ps_uring_wait(*state, 5, done, 1), 0);
}

/* A read of an empty pipe is a disk that does not answer. */
static void destroy_does_not_wait_for_a_hung_operation(void **state)
{
    struct block *b = ps_calloc(1, sizeof(*b));
    struct ps_uring_op op;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    b->iov[0] = (struct iovec){b->bytes, BLOCK};
    op = (struct ps_uring_op){fds[0], PS_URING_READ, b->iov, 1, (uint64_t)-1, b};
    if (strcmp(ps_uring_name(*state), "threads") == 0)
        op.offset = 0; /* preadv refuses -1, and every other offset of a pipe: ESPIPE */
    assert_int_equal(ps_uring_submit(*state, &op), PS_URING_OK);
    if (op.offset != 0) {
        assert_int_equal(ps_uring_destroy(*state, 5), PS_URING_E_BUSY);
        assert_int_equal(ps_uring_n_busy(*state), 1);
        assert_int_equal(write(fds[1], "x", 1), 1);
    }
    assert_int_equal(ps_uring_destroy(*state, 5000), PS_URING_OK);
    *state = NULL;
    close(fds[0]);
    close(fds[1]);
    ps_free(b);
}

static void environment_can_refuse_io_uring(void **state)
{
    struct ps_uring *u;

    (void)state;
    assert_int_equal(setenv("PENSTOCK_IO_URING", "0", 1), 0);
    assert_int_equal(ps_uring_create(&u, 1, PS_URING_AUTO), PS_URING_OK);
    assert_string_equal(ps_uring_name(u), "threads");
    assert_int_equal(ps_uring_destroy(u, 0), PS_URING_OK);
    assert_int_equal(unsetenv("PENSTOCK_IO_URING"), 0);
    assert_int_equal(ps_uring_create(&u, 1, PS_URING_AUTO), PS_URING_OK);
    assert_int_equal(ps_uring_depth(u), 1);
    assert_int_equal(ps_uring_destroy(u, 0), PS_URING_OK);
    assert_int_equal(ps_uring_destroy(NULL, 0), PS_URING_OK);
}

#define BOTH(f) \
    {"ring: " #f, f, make_ring, unmake, NULL}, \
    { \
        "threads: " #f, f, make_threads, unmake, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(what_was_written_is_read_each_operation_once),
        BOTH(end_of_file_is_a_short_read_and_an_error_is_its_errno),
        BOTH(more_than_depth_is_refused_and_nothing_changes),
        BOTH(poke_from_another_thread_ends_a_wait_before_or_in_it),
        BOTH(destroy_does_not_wait_for_a_hung_operation),
        cmocka_unit_test(environment_can_refuse_io_uring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
