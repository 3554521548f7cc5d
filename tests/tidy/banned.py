"""Functions and words that the house style does without."""

import re

from tree import line_of

CALLS = {
    r"strcpy|strcat|stpcpy|sprintf|vsprintf|gets": "writes without a bound",
    r"strncpy|strncat": "does not terminate or pads; copy with a length",
    r"strtok": "keeps hidden state",
    r"atoi|atol|atoll|atof": "cannot report an error",
    r"alloca": "input could choose the size of the stack",
    r"rand|srand|random|srandom": "hidden state; use common/rng.h",
    r"system|popen": "starts a shell",
    r"sleep|usleep": "waits for luck; wait for an event with a bound",
    r"signal": "differs between systems; use sigaction",
}
MEMORY = r"malloc|calloc|realloc|strdup|strndup|asprintf|posix_memalign|aligned_alloc|memalign"
MEMORY_OWNER = "common/base.c"
SIGNAL_OWNER = "common/test.h"

OTHER = {
    r"#\s*include\s*<assert\.h>": "use PS_ASSERT, which stays on in release",
    r"\btypedef\s+(struct|union)\b": "structs are not typedefed",
}
# The vector of a row is a plain vector for one instruction set and a struct for another.
TYPEDEF_OWNER = "kernels/cpu/vec_"
COMMENT_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def check(tree):
    problems = []
    calls = [(re.compile(rf"(?<![\w.>])({p})\s*\("), why) for p, why in CALLS.items()]
    memory = re.compile(rf"(?<![\w.>])({MEMORY})\s*\(")
    for name in tree.named(".c", ".h", ".cu", ".cuh"):
        code = tree.code(name)

        def report(m, why):
            problems.append(f"{name}:{line_of(code, m.start())}: {m[0].strip('( ')}: {why}")

        for pattern, why in calls:
            for m in pattern.finditer(code):
                if not (m[1] == "signal" and name == SIGNAL_OWNER):
                    report(m, why)
        if name != MEMORY_OWNER:
            for m in memory.finditer(code):
                report(m, "host memory comes from common/base.h")
        for pattern, why in OTHER.items():
            if "typedef" in pattern and name.startswith(TYPEDEF_OWNER):
                continue
            for m in re.finditer(pattern, tree.text(name) if "include" in pattern else code):
                report(m, why)
        for m in COMMENT_WORDS.finditer(tree.text(name)):
            problems.append(f"{name}:{line_of(tree.text(name), m.start())}: {m[0]}: "
                            "finish it or file it")
    return problems


CLEAN = {
    "common/base.c": "void *p = malloc(1);\n",
    "common/a.c": "/* sprintf(x) is banned; so is malloc() */\n"
                  'const char *s = "atoi(1)";\nint n = snprintf(b, 1, "x");\n'
                  "char *t = strtok_r(s, d, &u);\np->random(1);\nq.signal(2);\nps_strdup(s);\n",
}
PLANTS = [({"common/a.c": f"void f(void)\n{{\n    {c}(x);\n}}\n"}, f"a.c:3: {c}")
          for c in ("strcpy", "sprintf", "strtok", "atoi", "gets", "alloca", "strcat", "usleep",
                    "system", "rand", "malloc", "strdup", "signal")]
PLANTS += [
    ({"common/a.c": "#include <assert.h>\n"}, "PS_ASSERT"),
    ({"common/a.h": "typedef struct {\n    int x;\n} a_t;\n"}, "not typedefed"),
    ({"common/a.c": "/* TO" "DO: later */\n"}, "finish it"),
]
