"""The source tree as the checkers see it: what git tracks or would track, read once."""

import os
import pathlib
import re
import subprocess

ROOMS = ("common", "proto", "kernels", "router", "worker", "deploy", "tests", "bench")

PARTS = "tests/tidy/parts.txt"


class Tree:
    def __init__(self, root, build=None, compiler="cc"):
        self.root = pathlib.Path(root)
        self.build = build
        self.compiler = compiler
        self._text = {}
        self.files = sorted(self._list())

    def _list(self):
        if (self.root / ".git").exists():
            listed = subprocess.run(
                ["git", "-C", str(self.root), "-c", "safe.directory=*", "ls-files", "-z",
                 "--cached", "--others", "--exclude-standard"],
                capture_output=True, check=False)
            if listed.returncode == 0:
                names = listed.stdout.decode().split("\0")
                return [n for n in names if n and (self.root / n).is_file()]
        found = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [d for d in folders
                          if not d.startswith((".", "build")) and d not in ("__pycache__", "target")]
            rel = pathlib.Path(folder).relative_to(self.root)
            found += [(rel / n).as_posix() for n in names if not n.endswith(".pyc")]
        return found

    def named(self, *suffixes):
        return [f for f in self.files if f.endswith(suffixes)]

    def text(self, name):
        """The file as text; "" for what is not text."""
        if name not in self._text:
            raw = (self.root / name).read_bytes()
            try:
                self._text[name] = "" if b"\0" in raw else raw.decode()
            except UnicodeDecodeError:
                self._text[name] = ""
        return self._text[name]

    def code(self, name):
        """C text with comments and the insides of literals blanked; lines keep their numbers."""
        pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

        def blank(m):
            s = m.group(0)
            if s.startswith("/"):
                return re.sub(r"[^\n]", " ", s)
            return s[0] + " " * (len(s) - 2) + s[-1]

        return re.sub(pattern, blank, self.text(name), flags=re.S)


def parts(tree, problems):
    """Headers that are parts of a source, one "path reason ..." a line: not compiled alone."""
    listed = {}
    for number, line in enumerate(tree.text(PARTS).splitlines() if PARTS in tree.files else [], 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 2 or words[0] not in tree.files:
            problems.append(f"{PARTS}:{number}: expected: path of a header, reason")
        listed[words[0]] = number
    return listed


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1
