"""No file names a path of the machine it was written on."""

import re

from tree import line_of

# Spelled in pieces, so that this file passes its own check.
PATHS = re.compile(r"(?<![\w.$}~])/(?:" + "|".join(["wo" "rk/", "tm" r"p/ps\b", "ro" "ot/", "ho" "me/"]) + ")")


def check(tree):
    problems = []
    for name in tree.files:
        text = tree.text(name)
        for m in PATHS.finditer(text):
            problems.append(f"{name}:{line_of(text, m.start())}: {m[0]}: a path of one machine")
    return problems


CLEAN = {"docs/a.md": "framewo" "rk/x $HO" "ME/x /tm" "p/penstock-1 build/wo" "rk/ /usr/bin\n"}
PLANTS = [
    ({"docs/a.md": "\nsee /wo" "rk/main\n"}, "docs/a.md:2"),
    ({"tests/a.py": "open('/tm" "p/ps/x')\n"}, "a path of one machine"),
    ({"a.sh": "cd /ro" "ot/x\n"}, "a.sh:1"),
]
