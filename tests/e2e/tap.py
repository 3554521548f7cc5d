"""Tests as functions: each `test_*` is one TAP line; the first assertion that fails is its reason."""

import sys
import time
import traceback


class Skip(Exception):
    """Hardware that is not there, with the reason. Nothing else may skip."""


def run(tests, *args):
    print(f"1..{len(tests)}", flush=True)
    bad = 0
    for i, test in enumerate(tests, 1):
        name = test.__name__.removeprefix("test_").replace("_", " ")
        start = time.monotonic()
        try:
            note = test(*args)
            print(f"ok {i} - {name}{': ' + note if note else ''} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as e:
            print(f"ok {i} - {name} # SKIP {e}", flush=True)
        except Exception:
            bad += 1
            print(f"not ok {i} - {name}", flush=True)
            for line in traceback.format_exc().splitlines():
                print(f"# {line}", flush=True)
    sys.exit(1 if bad else 0)
