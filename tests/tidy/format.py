"""C is formatted by clang-format; .clang-format in the root is the whole agreement."""

import re
import shutil
import subprocess


def check(tree):
    names = tree.named(".c", ".h")
    tool = shutil.which("clang-format")
    if tool is None:
        return ["clang-format is not installed"]
    if not (tree.root / ".clang-format").exists():
        return [".clang-format is missing"]
    if not names:
        return []
    done = subprocess.run([tool, "--dry-run", "-Werror", *names], cwd=tree.root,
                          capture_output=True, text=True, check=False)
    found = dict.fromkeys(re.findall(r"^(\S+?:\d+):\d+: error: code should be", done.stderr, re.M))
    problems = [f"{place}: run clang-format -i" for place in found]
    if done.returncode != 0 and not problems:
        problems.append(f"clang-format failed: {done.stderr.strip()[:500]}")
    return problems


STYLE = "BasedOnStyle: LLVM\nIndentWidth: 4\n"
CLEAN = {".clang-format": STYLE, "common/a.c": "int a;\n"}
PLANTS = [
    ({".clang-format": STYLE, "common/a.c": "int a;\nint   b;\n"}, "common/a.c:2: run clang-format"),
    ({".clang-format": "Nonsense: 1\n", "common/a.c": "int a;\n"}, "clang-format failed"),
    ({"common/a.c": "int a;\n"}, ".clang-format is missing"),
]
