"""Workers that run no model, the step trace, and a cost model calibrated from a real worker's trace.

Usage: sim_test.py BUILD_DIR MODEL_DIR
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import tap
from cluster import Cluster
from client import request

TOKENS = 40
BASE_MS = 3


def complete(c, text, **more):
    r = request(c.port, "POST", "/v1/completions",
                {"model": "m", "prompt": text, "max_tokens": TOKENS, "temperature": 0, **more})
    assert r.status == 200, r.body
    return r.json()


def sim(state, *args):
    return Cluster(state["build"], state["dir"], worker_args=["--device", "sim", *args])


def read_trace(path):
    with open(path) as f:
        text = f.read()
    return json.loads(text if text.endswith("]\n") else text + "]")


def n_flows_ended(path):
    with open(path) as f:
        return f.read().count('{"ph":"f"')


def test_serves_without_weights_at_the_pace_of_its_cost_model(state):
    with sim(state, "--sim-cost", f"base={BASE_MS * 1000},row=0,prefill=0") as c:
        start = time.monotonic()
        first = complete(c, "A penstock is")
        took = time.monotonic() - start
        assert first["usage"]["completion_tokens"] == TOKENS
        assert took >= TOKENS * BASE_MS / 1000, took
        again, other = complete(c, "A penstock is"), complete(c, "A penstock was")
        assert again["choices"][0]["text"] == first["choices"][0]["text"] != other["choices"][0]["text"]
        c.wait_idle()
        return f"{TOKENS} tokens in {took * 1000:.0f} ms"


def test_fast_steps_take_no_time_and_answers_are_the_same(state):
    with sim(state) as c:
        slow = complete(c, "The same")
    with sim(state, "--sim-time", "fast", "--sim-item-bytes", 65536) as c:
        start = time.monotonic()
        fast = complete(c, "The same")
        assert time.monotonic() - start < TOKENS * 0.007
    assert fast["choices"][0]["text"] == slow["choices"][0]["text"]


def test_a_real_workers_trace_calibrates_a_simulated_one(state):
    path = os.path.join(state["dir"], "trace.json")
    with Cluster(state["build"], state["model"], worker_args=["--trace", path]) as c:
        for i in range(8):
            complete(c, f"Story number {i}: " + "once upon a time " * i)
        c.wait(lambda: n_flows_ended(path) == 8, 10, "the trace on disk")
        c.workers[0].kill()  # its bracket is missing then
        c.workers[0].wait()
    events = read_trace(path)
    steps = [e for e in events if e.get("cat") == "step"]
    assert len(steps) >= TOKENS and all(e["args"]["rows"] > 0 for e in steps)
    begun = [e for e in events if e["ph"] == "b"]
    assert {e["name"] for e in begun} >= {"queued", "prefill", "decode"}
    with sim(state, "--sim-calibrate", path, "--log-level", "info") as c:
        complete(c, "Once upon a time")
        line = next(x for x in c.tail().splitlines() if "calibrated" in x)
    return line.split("msg=")[1]


def test_self_bench_prints_its_table(state):
    out = subprocess.run([f"{state['build']}/worker/penstock-worker", "--self-bench"], capture_output=True, text=True,
                         timeout=120, check=True).stdout
    assert "scheduler" in out and "prefix tree" in out, out


def main():
    state = {"build": sys.argv[1], "model": sys.argv[2]}
    with tempfile.TemporaryDirectory() as d:
        for name in os.listdir(state["model"]):
            if not name.endswith(".safetensors"):
                shutil.copy(os.path.join(state["model"], name), d)
        state["dir"] = d
        tests = [v for k, v in globals().items() if k.startswith("test_")]
        tap.run(tests, state)


if __name__ == "__main__":
    main()
