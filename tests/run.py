"""Runs every suite this machine can run, cheap checks first, and counts what it saw.

Usage: tests/run.py [--quick]        (called by ./penstock.sh test)

Stages, in order: the tree's rules; gcc without warnings and the unit tests; clang without warnings; the
same tests under ASan+UBSan, and those with threads under TSan; references in Python; end-to-end runs of
real processes. Every test is a Meson test, so a single one is `meson test -C build NAME`. The last line
is `N passed, N failed, N skipped`; each failure is named above it, with the end of its output.
"""

import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CARGO = os.environ.get("CARGO", "cargo")
PYTHON = os.environ.get("PENSTOCK_PYTHON", "python3")

def suites(*names):
    return [x for n in names for x in ("--suite", n)]


# Where threads meet: rings, loops, the text pool, both ends of the wire.
THREADS = ["ring_test", "loop_test", "http_test", "api_test", "wire_pair_test", "exec_exec_dev_test", "uring_test",
           "tier_disk_test", "tier_peer_test", "tier_peers_test", "tier_share_test", "kv_store_test", "trace_test"]

# name, build directory, compiler, meson options, tests ([]: compile only), seconds
STAGES = [
    ("rules of the tree", "build", "gcc", [], suites("tidy"), 300),
    ("unit tests", "build", "gcc", [], suites("unit"), 900),
    ("clang", "build-clang", "clang", [], [], 600),
    ("ASan and UBSan", "build-asan", "gcc", ["-Db_sanitize=address,undefined"], suites("unit", "fuzz"), 1800),
    ("TSan", "build-tsan", "gcc", ["-Db_sanitize=thread"], THREADS, 900),
    ("references", "build", "gcc", [], suites("golden"), 1200),
    ("end to end", "build", "gcc", [], suites("conform", "fault", "e2e"), 1800),
]
QUICK = {"rules of the tree", "unit tests"}

passed, failed, skipped = 0, [], 0


def run(cmd, env=None, timeout=None):
    """Output goes to our standard output only when the command fails."""
    p = subprocess.Popen(cmd, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         errors="replace", start_new_session=True)
    try:
        out, _ = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, 9)
        out, _ = p.communicate()
        return 124, out + f"\nstopped after {timeout} s\n"
    return p.returncode, out


def build(directory, compiler, options):
    """Configures once and compiles; returns the output of what failed, or None."""
    path = os.path.join(ROOT, directory)
    # The Rust part does not depend on the C compiler or its sanitizers: built once for all directories.
    env = dict(os.environ, CC=compiler, PENSTOCK_CARGO_DIR=os.path.join(ROOT, "build", "cargo"))
    setup = ["meson", "setup", path, "-Dcargo=" + CARGO, "-Dtests=enabled", "-Dbench=enabled",
             "-Dpython=" + PYTHON, *options]
    if os.path.exists(os.path.join(path, "build.ninja")):
        setup.append("--reconfigure")
    status, out = run(setup, env)
    if status == 0:
        status, out = run(["ninja", "-C", path], env)
    return None if status == 0 else "\n".join(out.splitlines()[-40:])


def count(stage, line):
    """One Meson test: TAP programs count each of their subtests' results as one."""
    global passed, skipped
    name = f"{stage}: {line['name']}"
    if line["result"] == "SKIP":
        skipped += 1
        reason = (line.get("stdout") or "").strip().splitlines()
        print(f"  skipped {line['name']}: {reason[-1] if reason else 'no reason given'}", flush=True)
    elif line["result"] in ("OK", "EXPECTEDFAIL"):
        oks = [s for s in (line.get("stdout") or "").splitlines() if s.startswith("ok ")]
        skips = [s for s in oks if "# SKIP" in s.upper()]
        skipped += len(skips)
        passed += max(1, len(oks)) - len(skips)
    else:
        failed.append(name)
        tail = ((line.get("stdout") or "") + (line.get("stderr") or "")).splitlines()[-30:]
        print(f"  FAILED {line['name']} ({line['result']})", *tail, sep="\n    | ", flush=True)


def test(stage, directory, tests, timeout):
    log = os.path.join(ROOT, directory, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.remove(log)
    cmd = ["meson", "test", "-C", directory, "--no-rebuild", "--num-processes", str(os.cpu_count() or 1),
           *tests]
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", TSAN_OPTIONS="halt_on_error=1")
    status, out = run(cmd, env, timeout)
    n = 0
    if os.path.exists(log):
        with open(log) as f:
            for text in f:
                count(stage, json.loads(text))
                n += 1
    if n == 0 or status == 124:
        failed.append(f"{stage}: {'ran out of time' if status == 124 else 'no test ran'}")
        print("\n".join(out.splitlines()[-20:]), flush=True)


def main():
    quick = "--quick" in sys.argv[1:]
    built = set()
    for name, directory, compiler, options, tests, timeout in STAGES:
        if quick and name not in QUICK:
            continue
        start = time.monotonic()
        print(f"{name} ...", flush=True)
        if directory not in built:
            problem = build(directory, compiler, options)
            built.add(directory)
            if problem is not None:
                failed.append(f"{name}: does not build")
                print(problem, flush=True)
                continue
        if tests:
            test(name, directory, tests, timeout)
        else:
            global passed
            passed += 1
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    for name in failed:
        print(f"FAILED {name}")
    print(f"{passed} passed, {len(failed)} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0


sys.exit(main())
