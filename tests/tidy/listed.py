"""No dead files: the build names every source, and somebody includes every header."""

import posixpath
import re

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.M)


def is_listed(tree, builds, name):
    """Some meson.build above name has its path as a literal, with or without the ending."""
    folder = posixpath.dirname(name)
    while True:
        build = posixpath.join(folder, "meson.build")
        if build in builds:
            rel = posixpath.relpath(name, folder or ".")
            if f"'{rel}'" in builds[build] or f"'{posixpath.splitext(rel)[0]}'" in builds[build]:
                return True
        if not folder:
            return False
        folder = posixpath.dirname(folder)


def check(tree):
    builds = {}
    for name in tree.files:
        if posixpath.basename(name) == "meson.build":
            builds[name] = re.sub(r"#[^\n]*", "", tree.text(name))
    included = set()
    for name in tree.named(".c", ".h", ".cu", ".cuh", ".rs"):
        included |= set(INCLUDE.findall(tree.text(name)))
    problems = [f"{name}: no meson.build lists it" for name in tree.named(".c", ".cu")
                if name not in included and not is_listed(tree, builds, name)]
    tails = {posixpath.basename(i) for i in included if "/" not in i}
    for name in tree.named(".h"):
        if name not in included and posixpath.basename(name) not in tails:
            problems.append(f"{name}: nobody includes it")
    return problems


CLEAN = {
    "meson.build": "subdir('common')\n",
    "common/meson.build": "files('a.c', 'text/b.c')\nfoo = [['a_test', []]]\n",
    "common/a.c": '#include "common/a.h"\n',
    "common/a.h": "\n",
    "common/a_test.c": '#include "common/table.c"\n',
    "common/table.c": "\n",
    "common/text/b.c": "\n",
}
PLANTS = [
    ({"common/meson.build": "files('a.c')\n", "common/b.c": "\n"}, "common/b.c: no meson.build"),
    ({"common/meson.build": "# 'b.c'\n", "common/b.c": "\n"}, "common/b.c: no meson.build"),
    ({"meson.build": "files('b.c')\n", "common/b.c": "\n"}, "common/b.c: no meson.build"),
    ({"common/a.h": "\n"}, "common/a.h: nobody"),
]
