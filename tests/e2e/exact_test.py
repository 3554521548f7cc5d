"""Same request, same tokens: bit-identical ids and log-probabilities however the work is cut.

Usage: exact_test.py BUILD_DIR        (PENSTOCK_FULL=1: 300 requests, else 60)

A tiny random bf16 model answers random requests (greedy, seeded, penalties; 1 to 700 prompt tokens)
alone; then in batches of 32, with chunks of 16 and 512, warm, after eviction, on one and two threads,
with each instruction set forced, and moved in mid-stream by kill -9. Numbers are compared as text.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile

import tap
from client import Stream, gather, request
from cluster import Cluster

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import make_models  # noqa: E402

N = 300 if os.environ.get("PENSTOCK_FULL") == "1" else 60
N_VOCAB = make_models.MODELS["qwen3-bf16"][2]["vocab_size"]
state = {}


def make_requests():
    rng = random.Random(7)
    common = [rng.randrange(3, N_VOCAB) for _ in range(200)]  # some prompts share a beginning
    out = []
    for i in range(N):
        n = rng.choice([1, 2, 15, 16, 17, 31, 32, 33, rng.randint(1, 700), rng.randint(1, 700)])
        head = common[:rng.randint(1, min(n, 200))] if rng.random() < 0.4 else []
        ids = head + [rng.randrange(3, N_VOCAB) for _ in range(n - len(head))]
        body = {"prompt": ids, "max_tokens": rng.randint(1, 48) if i % 5 else 150, "logprobs": rng.choice([0, 3]), "seed": 1000 + i,
                "return_token_ids": True, "ignore_eos": rng.random() < 0.5, "temperature": 0}
        kind = i % 4
        if kind >= 1:
            body.update(temperature=rng.choice([0.7, 1.0, 1.5]))
        if kind == 2:
            body.update(top_p=0.9, top_k=rng.choice([-1, 40]), min_p=rng.choice([0, 0.05]))
        if kind == 3:
            body.update(repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.3)
        out.append(body)
    return out


def answer(s):
    assert s.error is None and s.done, s.error
    lp = [(c["logprobs"]["tokens"], c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"])
          for e in s.events for c in e["choices"] if c.get("logprobs")]
    flat = [[x for part in lp for x in part[k]] for k in range(3)]
    return s.ids(), flat, s.finish()


def run_all(c, at_once):
    streams = [Stream(c.port, "/v1/completions", b) for b in state["requests"]]
    asyncio.run(gather(streams, at_once))
    return [answer(s) for s in streams]


def same(got):
    bad = [i for i, (a, b) in enumerate(zip(state["alone"], got)) if a != b]
    assert not bad, f"{len(bad)} of {N} answers differ, first: request {bad[0]}:\n{state['alone'][bad[0]]}\n{got[bad[0]]}"


def cluster(n=1, threads=1, worker_args=(), router_args=()):
    return Cluster(state["build"], state["model"], n, router_args, worker_args, threads)


def test_alone_is_the_reference(build):
    with cluster() as c:
        state["alone"] = run_all(c, 1)
    assert sum(len(a[0]) for a in state["alone"]) > 5 * N, "answers are too short to prove anything"
    assert len({tuple(a[0]) for a in state["alone"]}) > N // 2, "answers are all alike"
    return f"{N} requests, {sum(len(a[0]) for a in state['alone'])} tokens"


def test_in_batches_of_32_then_warm(build):
    with cluster() as c:
        same(run_all(c, 32))
        before = c.stats()["prefix_cache"]["hit_tokens"]
        same(run_all(c, 32))
        assert c.stats()["prefix_cache"]["hit_tokens"] > before, "the second round hit nothing"


def test_chunks_of_16(build):
    with cluster(worker_args=["--chunk", "16"]) as c:
        same(run_all(c, 8))


def test_chunks_of_512(build):
    with cluster(worker_args=["--chunk", "512"]) as c:
        same(run_all(c, 8))


def test_after_eviction_and_preemption(build):
    # 660 KiB are 55 pages, 880 tokens of this model: hardly more than the longest request alone.
    with cluster(worker_args=["--kv-bytes", "660KiB", "--growth-reserve", "16"]) as c:
        same(run_all(c, 48))
        same(run_all(c, 32))
        c.wait_idle()
        s = c.stats()
        suspended = [float(x.split()[-1]) for x in request(c.port, "GET", "/metrics").body.decode().splitlines()
                     if x.startswith("penstock_preemptions{")][0]
        assert s["scheduler"]["kv_total_pages"] < 60 and suspended > 0, (s["scheduler"], suspended)
    return f"{suspended:.0f} suspensions"


def test_two_threads(build):
    with cluster(threads=2) as c:
        same(run_all(c, 32))


def isa_test(name):
    def test(build):
        try:
            with cluster(worker_args=["--isa", name]) as c:
                same(run_all(c, 16))
        except AssertionError as e:
            if "cannot run" in str(e):
                raise tap.Skip(f"this CPU lacks {name}") from e
            raise
    test.__name__ = f"test_isa_{name}_forced"
    return test


# 2 MiB are 170 pages of T0; the requests together make some thousands.
SMALL = ["--kv-bytes", "2MiB"]


def evicted_then_warm(worker_args, n=1):
    """All requests twice under a T0 much smaller than what they cache; returns tokens found cached."""
    with cluster(n, worker_args=SMALL + worker_args) as c:
        same(run_all(c, 16))
        before = c.stats()["prefix_cache"]["hit_tokens"]
        same(run_all(c, 16))
        return c.stats()["prefix_cache"]["hit_tokens"] - before


def test_with_each_tier(build):
    none = evicted_then_warm([])
    with tempfile.TemporaryDirectory() as tmp:
        disk = ["--kv-disk", f"{tmp}/t2", "--kv-disk-bytes", "256MiB"]
        hits = {
            "t1": evicted_then_warm(["--kv-host-bytes", "256MiB"]),
            "t2": evicted_then_warm(["--kv-host-bytes", "4MiB"] + disk),
            "t3": evicted_then_warm(["--kv-host-bytes", "4MiB", "--kv-share", tmp]),
        }
        with cluster(worker_args=SMALL + ["--kv-host-bytes", "4MiB"] + disk) as c:  # another life of the disk
            same(run_all(c, 16))
            hits["t2, restarted"] = c.stats()["prefix_cache"]["hit_tokens"]
    assert all(h > none for h in hits.values()), f"without tiers {none} tokens were found, with them {hits}"
    return f"tokens found again: none {none}, " + ", ".join(f"{k} {v}" for k, v in hits.items())


async def kill_now_and_then(c, streams):
    task = asyncio.ensure_future(gather(streams, 24))
    kills = 0
    while not task.done():
        done = sum(s.done for s in streams)
        if kills < 6 and done > (kills + 1) * len(streams) // 8 and c.n_live() == 2:
            i = kills % 2
            c.workers[i].send_signal(signal.SIGKILL)
            c.workers[i].wait()
            c.workers[i] = c.start_worker()
            kills += 1
        await asyncio.sleep(0.05)
    await task
    return kills


def test_moved_in_mid_stream_by_kill_9(build):
    with cluster(2, router_args=["--max-moves", "20", "--move-wait", "60"]) as c:
        streams = [Stream(c.port, "/v1/completions", b) for b in state["requests"]]
        kills = asyncio.run(kill_now_and_then(c, streams))
        same([answer(s) for s in streams])
        assert kills >= 2, f"only {kills} kills"
    return f"{kills} kills"


def main():
    with tempfile.TemporaryDirectory() as tmp:
        state.update(build=sys.argv[1], model=make_models.make("qwen3-bf16", tmp), requests=make_requests())
        tap.run([test_alone_is_the_reference, test_in_batches_of_32_then_warm, test_chunks_of_16, test_chunks_of_512,
                 test_after_eviction_and_preemption, test_two_threads, test_with_each_tier, isa_test("scalar"), isa_test("avx2"),
                 isa_test("avx512"), isa_test("amx"), test_moved_in_mid_stream_by_kill_9], sys.argv[1])


main()
