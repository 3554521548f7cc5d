"""Files and functions stay small enough to be read in one sitting."""

import re

from tree import PARTS, parts

SOURCE_LINES_MAX = 1500
HEADER_LINES_MAX = 300
FUNCTION_LINES_MAX = 100  # from brace to brace
EXCEPTIONS = "tests/tidy/long.txt"  # lines "path function reason ..."


def functions(code):
    """(name, first line, lines) of each function; clang-format puts its braces into column 0."""
    lines = code.split("\n")
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line.startswith("}") and start is not None:
            head = " ".join(lines[max(0, start - 8):start])
            head = re.split(r"[;}]", head)[-1]
            calls = [n for n in re.findall(r"(\w+)\s*\(", head)
                     if n not in ("PS_PRINTF", "PS_AUTO", "__attribute__", "format")]
            yield (calls[0] if calls else "?"), start + 1, i - start + 1
            start = None


def read_exceptions(tree, problems):
    allowed = {}
    if EXCEPTIONS not in tree.files:
        return allowed
    for number, line in enumerate(tree.text(EXCEPTIONS).splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 3:
            problems.append(f"{EXCEPTIONS}:{number}: expected: path function reason")
        else:
            allowed[(words[0], words[1])] = number
    return allowed


def check(tree):
    problems = []
    allowed = read_exceptions(tree, problems)
    of_source = parts(tree, [])
    for name in tree.named(".c", ".h", ".cu", ".cuh", ".py", ".rs"):
        n_lines = tree.text(name).count("\n")
        is_header = name.endswith((".h", ".cuh")) and name not in of_source
        limit = HEADER_LINES_MAX if is_header else SOURCE_LINES_MAX
        if n_lines > limit:
            problems.append(f"{name}: {n_lines} lines, at most {limit}")
        if not name.endswith((".c", ".h", ".cu", ".cuh")):
            continue
        for function, line, n in functions(tree.code(name)):
            if n > FUNCTION_LINES_MAX and allowed.pop((name, function), None) is None:
                problems.append(f"{name}:{line}: {function} has {n} lines, "
                                f"at most {FUNCTION_LINES_MAX}")
    for (name, function), number in allowed.items():
        problems.append(f"{EXCEPTIONS}:{number}: {name} {function} is no long function any more")
    return problems


def long_function(n_lines):
    return "static int f(void)\n{\n" + "    g();\n" * (n_lines - 2) + "}\n"


CLEAN = {
    "common/a.c": long_function(100) + "struct s {\n" + "    int x;\n" * 200 + "};\n",
    "common/b.c": long_function(101),
    "common/b.h": "\n" * 300,
    "common/c_body.h": "\n" * 301,
    PARTS: "common/c_body.h the body of c for each instruction set\n",
    EXCEPTIONS: "# why\ncommon/b.c f one flat table of cases\n",
}
PLANTS = [
    ({"common/a.c": long_function(101)}, "f has 101 lines"),
    ({"common/a.c": "\n" * 1501}, "1501 lines"),
    ({"common/a.h": "\n" * 301}, "301 lines"),
    ({"common/a.c": long_function(101), EXCEPTIONS: "common/a.c g other\n"}, "f has 101 lines"),
    ({"common/a.c": long_function(50), EXCEPTIONS: "common/a.c f was long\n"}, "any more"),
    ({"common/a.c": long_function(101), EXCEPTIONS: "common/a.c f\n"}, "expected: path"),
]
