#include "tests/fault/wire_fake.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/hash.h"

struct wire_table *wire_table_open(const char *path)
{
    int fd = -1, flags = MAP_SHARED | MAP_ANONYMOUS;
    void *p;

    if (path != NULL) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        /* Never shorter, not for a moment: the observer has it mapped. */
        PS_ASSERT(fd >= 0 && ftruncate(fd, sizeof(struct wire_table)) == 0);
        flags = MAP_SHARED;
    }
    p = mmap(NULL, sizeof(struct wire_table), PROT_READ | PROT_WRITE, flags, fd, 0);
    PS_ASSERT(p != MAP_FAILED);
    if (fd >= 0)
        close(fd);
    return p;
}

uint32_t wire_token(uint64_t seed, uint32_t i)
{
    return (uint32_t)(ps_hash64(&i, sizeof(i), seed) % WIRE_VOCAB);
}
