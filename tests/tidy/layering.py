"""Who may include whom, and which directory owns which third-party library."""

import re

from tree import ROOMS, line_of

MAY_INCLUDE = {
    "common": {"common"},
    "proto": {"proto", "common"},
    "kernels": {"kernels", "common"},
    "router": {"router", "proto", "common"},
    "worker": {"worker", "kernels", "proto", "common"},
    "deploy": {"deploy", "proto", "common"},
    "tests": set(ROOMS),
    "bench": set(ROOMS),
}

# Inside common: the core knows none of its upper layers.
LAYERS = {
    "common/net": set(),
    "common/mq": set(),
    "common/uring": set(),
    "common/text": set(),
    "common/model": {"common/text"},
}
CORE_OUTSIDE = {"common/text/utf8.h", "common/text/utf8.c"}

# First part of the include -> prefixes of the files that may use it.
OWNERS = {
    "uv.h": ("common/net/",),
    "llhttp.h": ("common/net/",),
    "zmq.h": ("common/mq/",),
    "zmq_utils.h": ("common/mq/",),
    "jansson.h": ("common/json/",),
    "pcre2.h": ("common/text/",),
    "utf8proc.h": ("common/text/",),
    "textkit.h": ("common/text/",),
    "llguidance.h": ("common/text/",),
    "protobuf-c": ("proto/",),
    "openssl": ("common/hash.c",),
    "xxhash.h": ("common/hash.c",),
    "liburing.h": ("common/uring/",),
    "cuda_runtime.h": ("kernels/cuda/",),
    "nccl.h": ("kernels/cuda/",),
    "cmocka.h": ("common/test.h",),
}
SYSTEM = {
    "complex.h", "ctype.h", "errno.h", "fenv.h", "float.h", "inttypes.h", "limits.h", "locale.h",
    "math.h", "setjmp.h", "signal.h", "stdalign.h", "stdarg.h", "stdatomic.h", "stdbool.h",
    "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "stdnoreturn.h", "string.h", "time.h", "wchar.h",
    "cpuid.h", "dirent.h", "dlfcn.h", "endian.h", "fcntl.h", "ftw.h", "getopt.h", "glob.h",
    "ifaddrs.h", "immintrin.h", "libgen.h", "netdb.h", "poll.h", "pthread.h", "pwd.h", "regex.h",
    "sched.h", "semaphore.h", "spawn.h", "strings.h", "syslog.h", "termios.h", "ucontext.h",
    "unistd.h", "malloc.h", "execinfo.h",
}
SYSTEM_DIRS = {"sys", "linux", "arpa", "netinet", "net", "asm", "sanitizer"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def layer_of(name):
    if name in CORE_OUTSIDE:
        return "common"
    for layer in LAYERS:
        if name.startswith(layer + "/"):
            return layer
    return "common" if name.startswith("common/") else None


def check_ours(name, room, target):
    to_room = target.split("/")[0]
    if "/" not in target or to_room not in ROOMS:
        return f'"{target}" is not written from the root of the tree'
    if to_room not in MAY_INCLUDE[room]:
        return f"{room} may not include {to_room} ({target})"
    here, there = layer_of(name), layer_of(target)
    is_test = name.endswith("_test.c")
    if room == "common" and not is_test and there not in (None, "common", here):
        if there not in LAYERS.get(here, set()):
            return f"{here} may not include {there} ({target})"
    return None


def check_third(name, room, target):
    head = target.split("/")[0]
    if target in SYSTEM or head in SYSTEM_DIRS or room in ("tests", "bench"):
        return None
    if head not in OWNERS:
        return f"<{target}> is in no list of tests/tidy/layering.py"
    if head == "cmocka.h" and name.endswith("_test.c"):
        return None
    if not name.startswith(OWNERS[head]):
        return f"<{target}> belongs to {' '.join(OWNERS[head])}"
    return None


def check(tree):
    problems = []
    for name in tree.named(".c", ".h", ".cu", ".cuh"):
        room = name.split("/")[0]
        if room not in ROOMS:
            problems.append(f"{name}: C outside the rooms {' '.join(ROOMS)}")
            continue
        for m in INCLUDE.finditer(tree.text(name)):
            what = (check_ours if m[1] == '"' else check_third)(name, room, m[2])
            if what:
                problems.append(f"{name}:{line_of(tree.text(name), m.start())}: {what}")
    return problems


CLEAN = {
    "common/base.h": "#include <stdint.h>\n",
    "common/net/loop.c": '#include <uv.h>\n#include "common/base.h"\n',
    "common/json/json.c": '#include "common/text/utf8.h"\n#include <jansson.h>\n',
    "router/a_test.c": "#include <cmocka.h>\n",
    "common/model/block.c": '#include "common/text/tokenizer.h"\n',
    "worker/step.c": '#include "kernels/ops.h"\n#include "proto/frame.h"\n#include <sys/mman.h>\n',
}
PLANTS = [
    ({"router/a.c": '#include "worker/kv.h"\n'}, "router may not include worker"),
    ({"worker/a.c": '#include "router/a.h"\n'}, "worker may not include router"),
    ({"common/a.h": '#include "proto/frame.h"\n'}, "common may not include proto"),
    ({"kernels/a.h": '#include "proto/frame.h"\n'}, "kernels may not include proto"),
    ({"deploy/cli/a.c": '#  include "worker/a.h"\n'}, "deploy may not include worker"),
    ({"common/a.c": '#include "common/net/loop.h"\n'}, "common may not include common/net"),
    ({"common/text/a.c": '#include "common/model/block.h"\n'}, "common/text may not include"),
    ({"router/a.c": "#include <uv.h>\n"}, "belongs to common/net/"),
    ({"router/a.c": "#include <cmocka.h>\n"}, "belongs to common/test.h"),
    ({"common/net/a.c": "#include <zmq.h>\n"}, "belongs to common/mq/"),
    ({"worker/kv/a.c": "#include <liburing.h>\n"}, "belongs to common/uring/"),
    ({"worker/a.c": "#include <openssl/evp.h>\n"}, "belongs to common/hash.c"),
    ({"proto/a.c": "#include <jansson.h>\n"}, "belongs to common/json/"),
    ({"worker/a.c": "#include <curl/curl.h>\n"}, "is in no list"),
    ({"worker/a.c": '#include "step.h"\n'}, "not written from the root"),
    ({"extra/a.c": "\n"}, "outside the rooms"),
]
