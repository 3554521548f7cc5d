"""Every header compiles alone, twice, and says #pragma once first."""

import concurrent.futures
import json
import os
import shlex
import subprocess

from tree import PARTS, parts

N_PARALLEL = 2
WARNINGS = ["-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wstrict-prototypes", "-Wundef",
            "-Wno-format-zero-length", "-Werror"]


def include_flags(tree):
    """All -I and -isystem of the build, made absolute, so that generated headers are found."""
    flags = ["-I" + str(tree.root)]
    if tree.build is None:
        return flags
    with open(os.path.join(tree.build, "compile_commands.json"), encoding="utf-8") as f:
        commands = json.load(f)
    for entry in commands:
        words = shlex.split(entry["command"])
        for i, word in enumerate(words):
            if word == "-isystem":
                flag = ["-isystem", os.path.normpath(os.path.join(tree.build, words[i + 1]))]
            elif word.startswith(("-I", "-isystem")):
                kind = "-I" if word.startswith("-I") else "-isystem"
                path = os.path.normpath(os.path.join(tree.build, word[len(kind):]))
                # The directory of a target itself is no include path of ours.
                if path.startswith(str(tree.root) + os.sep):
                    continue
                flag = [kind + path] if kind == "-I" else [kind, path]
            else:
                continue
            if flag[-1] not in flags:
                flags += flag
    return flags


def compile_alone(tree, flags, name):
    text = f'#include "{name}"\n#include "{name}"\n'
    done = subprocess.run([tree.compiler, "-fsyntax-only", "-x", "c", *WARNINGS, *flags, "-"],
                          input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    first = next((l for l in done.stderr.splitlines() if "error" in l), done.stderr.strip())
    return f"{name}: does not compile alone: {first}"


def check(tree):
    problems = []
    names = tree.named(".h")
    flags = include_flags(tree)
    of_source = parts(tree, problems)
    for name in names:
        if tree.code(name).split("\n\n")[0].strip() != "#pragma once":
            problems.append(f"{name}: does not begin with #pragma once")
    with concurrent.futures.ThreadPoolExecutor(N_PARALLEL) as pool:
        done = pool.map(lambda name: compile_alone(tree, flags, name), names)
        for name, problem in zip(names, done):
            if problem and name not in of_source:
                problems.append(problem)
            elif not problem and name in of_source:
                problems.append(f"{PARTS}:{of_source[name]}: {name} compiles alone")
    return problems


GOOD = "#pragma once\n\n#include <stdint.h>\n\nstruct a {\n    uint32_t x;\n};\n"
PART = "#pragma once\n\nstatic vf f(vf x);\n"
CLEAN = {"common/a.h": GOOD, "common/b.h": PART, PARTS: "# why\ncommon/b.h needs the type vf\n"}
PLANTS = [
    ({"common/a.h": "#pragma once\n\nstruct a {\n    uint32_t x;\n};\n"}, "does not compile alone"),
    ({"common/b.h": PART}, "does not compile alone"),
    ({"common/a.h": GOOD, PARTS: "common/a.h a part\n"}, "compiles alone"),
    ({PARTS: "common/a.h a part\n"}, "expected: path"),
    ({"common/a.h": "struct a {\n    int x;\n};\n"}, "#pragma once"),
]
