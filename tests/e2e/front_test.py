"""The front door as a user meets it: demo, serve, chat, drain, restarts, bad configuration.

Usage: front_test.py BUILD_DIR SOURCE_ROOT
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import tap
from client import request
from cluster import free_port

state = {}


def penstock(*args, **kw):
    return subprocess.run([f"{state['build']}/deploy/cli/penstock", *args], capture_output=True, text=True, timeout=120,
                          **kw)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


def gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{p}") for p in pids):
        assert time.monotonic() < end, f"left behind: {pids}"
        time.sleep(0.02)


class Serve:
    def __init__(self, *args):
        self.port = free_port()
        self.p = subprocess.Popen([f"{state['build']}/deploy/cli/penstock", "serve", "--port", str(self.port), *args],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait_ready(self, n=1):
        end = time.monotonic() + 60
        while True:
            try:
                a = request(self.port, "GET", "/ready", timeout=5)
                if a.status == 200 and a.json()["workers"]["ready"] >= n:
                    return
            except (OSError, ValueError):
                pass
            assert self.p.poll() is None and time.monotonic() < end, self.p.stderr.read()
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        self.p.stderr.close()


def chat_body(question, **more):
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 120, **more}


def test_demo_answers_and_leaves_nothing(_, __):
    start = time.monotonic()
    p = penstock("demo")
    seconds = time.monotonic() - start
    assert p.returncode == 0, p.stderr
    assert "What is a penstock?" in p.stdout and len(p.stdout.split("What is a penstock?")[1].strip()) > 40, p.stdout
    left = subprocess.run(["pgrep", "-f", f"{state['build']}/(router|worker)/penstock"], capture_output=True, text=True)
    assert left.stdout == "", f"left behind: {left.stdout}"
    return f"{seconds:.1f} s in all"


def test_the_demo_model_knows_its_facts(_, source):
    with open(f"{source}/deploy/demo/expect.json") as f:
        rows = json.load(f)
    with Serve("--workers", "2") as s:
        s.wait_ready(2)
        bad = []
        for row in rows:
            text = request(s.port, "POST", "/v1/chat/completions", chat_body(row["question"])).json()
            answer = text["choices"][0]["message"]["content"]
            words = row["must_contain"] if isinstance(row["must_contain"], list) else [row["must_contain"]]
            if not all(w.lower() in answer.lower() for w in words):
                bad.append((row["question"], answer))
        assert not bad, f"{len(bad)} of {len(rows)} wrong: {bad[0]}"
    return f"{len(rows)} questions"


def test_ctrl_c_drains_and_leaves_nothing(_, __):
    with Serve("--workers", "2") as s:
        s.wait_ready(2)
        kids = children(s.p.pid)
        assert len(kids) == 3, kids
        s.p.send_signal(signal.SIGINT)
        assert s.p.wait(30) == 0
        gone(kids)


def test_a_dead_worker_is_started_again(_, __):
    with Serve("--workers", "2") as s:
        s.wait_ready(2)
        kids = children(s.p.pid)
        os.kill(kids[1], signal.SIGKILL)
        gone([kids[1]])
        s.wait_ready(2)
        assert request(s.port, "POST", "/v1/chat/completions", chat_body("What is a penstock?")).status == 200


def test_a_killed_supervisor_takes_its_children_along(_, __):
    with Serve("--workers", "1") as s:
        s.wait_ready()
        kids = children(s.p.pid)
        s.p.send_signal(signal.SIGKILL)
        s.p.wait()
        gone(kids)


def test_chat_talks(_, __):
    with Serve("--workers", "1") as s:
        s.wait_ready()
        p = penstock("chat", "--url", f"http://127.0.0.1:{s.port}", input="What is a penstock?\n")
        assert p.returncode == 0 and "penstock" in p.stdout.lower(), (p.stdout, p.stderr)


def test_chat_without_a_cluster_says_what_to_do(_, __):
    p = penstock("chat", "--url", f"http://127.0.0.1:{free_port()}", input="hello\n")
    assert p.returncode == 1 and "penstock.sh serve" in p.stderr


def test_every_program_has_help_version_check_and_dump(build, source):
    programs = {"router/penstock-router": ["--model", f"{source}/deploy/demo/model"],
                "worker/penstock-worker": ["--model", f"{source}/deploy/demo/model", "--router", "tcp://127.0.0.1:7070"]}
    for path, args in programs.items():
        run = lambda *a: subprocess.run([f"{build}/{path}", *a], capture_output=True, text=True, timeout=20)  # noqa: E731
        assert run("--help").returncode == 0 and "--model" in run("--help").stdout
        assert run("--version").returncode == 0 and "penstock" in run("--version").stdout
        assert run(*args, "--check-config").returncode == 0
        dump = run(*args, "--dump-config").stdout
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as f:
            f.write(dump)
            f.flush()
            again = run("--config", f.name, "--dump-config")
        assert again.stdout == dump, f"{path}: a dumped configuration does not load back equal"
        bad = run(*args, "--no-such-flag")
        assert bad.returncode == 2 and len(bad.stderr.strip().splitlines()) == 1, bad.stderr


def test_a_wrong_model_directory_is_refused_with_one_sentence(build, _):
    with tempfile.TemporaryDirectory() as tmp:
        for program, more in (("router/penstock-router", []),
                              ("worker/penstock-worker", ["--router", "tcp://127.0.0.1:7070"])):
            p = subprocess.run([f"{build}/{program}", "--model", tmp, *more], capture_output=True, text=True, timeout=20)
            assert p.returncode != 0 and "config.json" in p.stderr, (program, p.returncode, p.stderr)


def test_a_public_address_needs_keys(build, source):
    p = subprocess.run([f"{build}/router/penstock-router", "--model", f"{source}/deploy/demo/model", "--host", "0.0.0.0"],
                       capture_output=True, text=True, timeout=20)
    assert p.returncode == 2 and "--api-key-file" in p.stderr


def main():
    state["build"] = sys.argv[1]
    tap.run([test_demo_answers_and_leaves_nothing, test_the_demo_model_knows_its_facts,
             test_ctrl_c_drains_and_leaves_nothing, test_a_dead_worker_is_started_again,
             test_a_killed_supervisor_takes_its_children_along, test_chat_talks,
             test_chat_without_a_cluster_says_what_to_do, test_every_program_has_help_version_check_and_dump,
             test_a_wrong_model_directory_is_refused_with_one_sentence, test_a_public_address_needs_keys],
            sys.argv[1], sys.argv[2])


main()
