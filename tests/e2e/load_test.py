"""The load generators: against a real cluster their counts are the cluster's, and a server that lies is caught.

Usage: load_test.py BUILD_DIR MODEL_DIR
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

import tap
from client import request
from cluster import Cluster

VOCAB = 2048  # of the demo model


def run(build, name, port, *options, want=0):
    """Runs a generator against loopback; returns its JSON result."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        cmd = [f"{build}/bench/penstock-{name}", "--target", f"127.0.0.1:{port}", "--vocab", VOCAB, "--json", path,
               *options]
        done = subprocess.run([str(x) for x in cmd], capture_output=True, text=True, timeout=120)
        assert done.returncode == want, f"{done.returncode}: {done.stdout}{done.stderr}"
        with open(path) as f:
            return json.load(f)


def metric(port, name):
    lines = request(port, "GET", "/metrics").body.decode().splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith(name + "{") or x.startswith(name + " "))


def check_times(r, *names):
    for n in names:
        t = r[n]
        assert 0 < t["p50"] <= t["p90"] <= t["p99"] <= t["max"], (n, t)


def test_a_closed_loop_counts_what_the_cluster_counts(build, model):
    with Cluster(build, model) as c:
        r = run(build, "load", c.port, "--requests", 60, "--concurrency", 12, "--threads", 2, "--prompt-tokens",
                "40-80", "--output-tokens", 10, "--prefix-tokens", 32, "--prefix-groups", 2)
        prompt = metric(c.port, "vllm:prompt_tokens_total")
        output = metric(c.port, "vllm:generation_tokens_total")
        cached = metric(c.port, "vllm:prompt_tokens_cached_total")
    assert r["requests"] == {"ok": 60, "failed": 0} and r["errors"] == {}, r
    assert r["tokens"] == {"prompt": prompt, "output": output, "cached": cached}, (r["tokens"], prompt, output, cached)
    assert r["tokens"]["output"] == 600 and 60 * 40 <= r["tokens"]["prompt"] <= 60 * 80
    assert r["tokens"]["cached"] >= 32 * 40, "the shared prefixes were not found again"
    assert r["ttft_ms"]["n"] == r["tpot_ms"]["n"] == r["e2e_ms"]["n"] == 60 and r["gap_ms"]["n"] <= 540
    check_times(r, "ttft_ms", "gap_ms", "tpot_ms", "e2e_ms")
    assert 0 < r["client"]["cpu_share"] < 1
    return f"{r['rates']['output_tok_s']:.0f} tokens/s, client {100 * r['client']['cpu_share']:.1f} % of a core"


def test_an_open_loop_keeps_its_times(build, model):
    with Cluster(build, model) as c, tempfile.TemporaryDirectory() as folder:
        r = run(build, "load", c.port, "--rate", 40, "--duration", 1.5, "--prompt-tokens", 20, "--output-tokens", 4,
                "--slo-ttft", 60000, "--slo-tpot", 60000, "--warmup", 3)
        n = r["requests"]["ok"]
        assert 30 <= n <= 90 and r["mode"] == "poisson" and r["late_ms"]["n"] == n, r
        assert r["goodput"]["requests"] == n
        path = os.path.join(folder, "trace")
        with open(path, "w") as f:
            for i in range(20):
                f.write(json.dumps({"timestamp": 100 * i, "input_length": 700, "output_length": 64,
                                    "hash_ids": [0, i]}) + "\n")
        r = run(build, "load", c.port, "--trace", path, "--trace-speed", 2, "--trace-shrink", 16)
    assert r["requests"]["ok"] == 20 and r["tokens"]["output"] == 80 and r["tokens"]["prompt"] == 20 * 43, r
    assert r["tokens"]["cached"] >= 15 * 32, "equal hash ids did not give equal tokens"
    assert 0.95 <= r["wall_s"] < 30
    return f"{n} arrivals"


def test_warm_turns_find_their_history_and_answers_repeat(build, model):
    shape = ("--sessions", 5, "--groups", 2, "--system-tokens", 64, "--first-tokens", 100, "--tool-tokens", 20,
             "--answer-tokens", 12)
    with tempfile.TemporaryDirectory() as folder:
        a, b, state = (os.path.join(folder, x) for x in ("a", "b", "state"))
        with Cluster(build, model) as c:
            one = run(build, "agent", c.port, *shape, "--turns", 2, "--state", state, "--answers", a)
            two = run(build, "agent", c.port, *shape, "--turns", 1, "--resume", state, "--think", 0.01)
        with Cluster(build, model) as c:
            run(build, "agent", c.port, *shape, "--turns", 2, "--concurrency", 1, "--answers", b)
        same = subprocess.run([f"{build}/bench/penstock-agent", "--compare", a, b], capture_output=True, text=True)
        assert same.returncode == 0, same.stdout + same.stderr
        assert same.stdout.startswith("10 turns, 0 differ"), same.stdout
        with open(b) as f:
            lines = f.read().splitlines()
        with open(b, "w") as f:
            f.write("\n".join([*lines[:3], lines[3] + "1", *lines[4:]]) + "\n")
        other = subprocess.run([f"{build}/bench/penstock-agent", "--compare", a, b], capture_output=True, text=True)
        assert other.returncode == 1 and "session 1 turn 1" in other.stdout, other.stdout
    assert one["cold"]["turns"] == one["warm"]["turns"] == two["warm"]["turns"] == 5 and two["cold"]["turns"] == 0
    assert one["cold"]["prompt_tokens"] == 5 * 164 and one["warm"]["prompt_tokens"] == 5 * 196
    assert one["warm"]["avoidable_tokens"] == 5 * 176 and two["warm"]["avoidable_tokens"] == 5 * 208
    for r in (one, two):
        # Whole pages of 16 tokens, less the page that holds the last token of the answer.
        assert r["warm"]["avoided_tokens"] >= r["warm"]["avoidable_tokens"] - 5 * 16, r["warm"]
        check_times(r["warm"], "ttft_ms", "e2e_ms")
    return f"{100 * two['warm']['avoided_share']:.1f} % avoided"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(*events):
    body = b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events)
    return b"%x\r\n%b\r\n" % (len(body), body)


def token(*ids):
    return {"choices": [{"index": 0, "text": "", "token_ids": list(ids), "finish_reason": None}], "usage": None}


def usage(prompt=8, output=2, cached=0):
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output,
                                     "prompt_tokens_details": {"cached_tokens": cached}}}


END = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
GOOD = [HEAD + chunk(token(5)), chunk(token(6)), chunk(END, usage(), b"[DONE]") + b"0\r\n\r\n"]


class Fake:
    """Serves each request of a connection the same pieces; None ends the connection, "hang" says nothing more."""

    def __init__(self, pieces, per_conn=1000):
        self.pieces, self.per_conn, self.n_conns = pieces, per_conn, 0
        self.conns = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                conn = self.sock.accept()[0]
                self.conns.append(conn)
                self.n_conns += 1
                threading.Thread(target=self.serve, args=(conn,), daemon=True).start()
        except OSError:
            pass  # closed: the test is over

    def serve(self, conn):
        with conn, conn.makefile("rb") as f:
            for _ in range(self.per_conn):
                length = 0
                while (line := f.readline().strip().lower()):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not length or len(f.read(length)) < length:
                    return
                for p in self.pieces:
                    if p is None:
                        return
                    if p == "hang":
                        f.read(1)
                        return
                    conn.sendall(p)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def against(build, pieces, *options, want=1, per_conn=1000):
    with Fake(pieces, per_conn) as f:
        r = run(build, "load", f.port, "--requests", 6, "--concurrency", 2, "--prompt-tokens", 8, "--output-tokens",
                2, *options, want=want)
        return r, f.n_conns


def test_a_server_that_lies_or_breaks_is_counted_by_kind(build, _model):
    plain = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"
    last = b"0\r\n\r\n"
    cases = {
        "count": [
            [HEAD + chunk(token(5), token(6), END, usage(output=3), b"[DONE]") + last],
            [HEAD + chunk(token(5), token(6), END, usage(prompt=7), b"[DONE]") + last],
            [HEAD + chunk(token(5), token(6), END, usage(cached=9), b"[DONE]") + last],
            [HEAD + chunk(token(5), END, usage(), b"[DONE]") + last],
            [HEAD + chunk(token(5), token(6), END, b"[DONE]") + last],
            [HEAD + chunk(token(5), token(6), usage(), b"[DONE]") + last],
        ],
        "closed": [
            [HEAD + chunk(token(5)), None],
            [HEAD + chunk(token(5), token(6), END, usage()) + last],
            [None],
        ],
        "stream": [[HEAD + chunk({"error": {"message": "gone", "code": 500}}) + last]],
        "malformed": [[b"SSH-2.0 hello there\r\n"], [HEAD + chunk(b"{]") + last],
                      [HEAD + b"zz\r\n"], [b"".join(GOOD) + b"more"]],
        "http_5xx": [[plain]],
        "http_4xx": [[plain.replace(b"503", b"429")]],
    }
    for kind, many in cases.items():
        for pieces in many:
            r, _ = against(build, pieces)
            assert r["errors"] == {kind: 6} and r["requests"]["ok"] == 0, (kind, pieces, r["errors"])
    r, _ = against(build, [HEAD + chunk(token(5)), "hang"], "--timeout", 0.5)
    assert r["errors"] == {"timeout": 6}, r["errors"]


def test_connections_are_kept_and_a_kept_one_that_was_closed_is_opened_anew(build, _model):
    r, n = against(build, GOOD, want=0)
    assert r["requests"] == {"ok": 6, "failed": 0} and n == 2, (r, n)
    # Byte for byte: an answer in pieces of one byte is the same answer.
    r, _ = against(build, [bytes([x]) for x in b"".join(GOOD)], want=0)
    assert r["requests"]["ok"] == 6 and r["tokens"] == {"prompt": 48, "output": 12, "cached": 0}
    r, n = against(build, GOOD, want=0, per_conn=1)
    assert r["requests"] == {"ok": 6, "failed": 0} and n == 6, (r, n)


def test_only_the_given_address_is_asked(build, _model):
    with Fake(GOOD) as other:
        moved = (f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{other.port}/\r\n"
                 "content-length: 0\r\n\r\n").encode()
        r, _ = against(build, [moved])
        assert r["errors"] == {"malformed": 6} and other.n_conns == 0, (r, other.n_conns)
    for bad in ("example.com:80", "127.0.0.1", "127.0.0.1:0", ":80", "127.0.0.1:99999", "1.2.3:80"):
        done = subprocess.run([f"{build}/bench/penstock-load", "--target", bad, "--vocab", "9", "--requests", "1"],
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and "--target" in done.stderr, (bad, done)


tap.run([test_a_closed_loop_counts_what_the_cluster_counts, test_an_open_loop_keeps_its_times,
         test_warm_turns_find_their_history_and_answers_repeat,
         test_a_server_that_lies_or_breaks_is_counted_by_kind,
         test_connections_are_kept_and_a_kept_one_that_was_closed_is_opened_anew,
         test_only_the_given_address_is_asked], *sys.argv[1:3])
