"""Many streams at once, clients that vanish, workers and routers that die.

Usage: streams_test.py BUILD_DIR MODEL_DIR       (PENSTOCK_FULL=1: 1,000 streams, else 200)
"""

import asyncio
import os
import resource
import signal
import sys
import time

import tap
from client import Stream, gather, request
from cluster import Cluster, n_fds, rss_bytes

FULL = os.environ.get("PENSTOCK_FULL") == "1"
N = 1000 if FULL else 200


def chat(i, max_tokens=24, **more):
    """A stream that must bring its own nonce back: the echo of a completion carries the prompt."""
    return {"model": "default", "prompt": f"nonce-{i:05d} What is a penstock?", "echo": True, "max_tokens": max_tokens,
            "temperature": 0, "ignore_eos": True, "return_token_ids": True, "seed": i, **more}


def check_all(streams, max_tokens):
    for i, s in enumerate(streams):
        assert s.error is None, f"stream {i}: {s.error}"
        assert s.done and s.finish() == "length", f"stream {i}: done {s.done}, finish {s.finish()}"
        assert s.text().startswith(f"nonce-{i:05d} "), f"stream {i} carries another's text: {s.text()[:40]!r}"
        assert len(s.ids()) == max_tokens, f"stream {i}: {len(s.ids())} tokens"


def baseline(c):
    c.wait_idle()
    return [(p.pid, rss_bytes(p.pid), n_fds(p.pid)) for p in [c.router, *c.workers]]


def back_at(c, base, slack_bytes=8 << 20):
    """The baseline was taken after the same load once: pages and buffers it needs are there already."""
    c.wait_idle(20)
    for pid, rss, fds in base:
        c.wait(lambda: n_fds(pid) <= fds + 2, 10, f"descriptors of {pid} back at {fds}")
        grown = rss_bytes(pid) - rss
        assert grown < slack_bytes, f"process {pid} grew by {grown >> 10} KiB"
    return f"RSS {', '.join(f'{(rss_bytes(pid) - rss) >> 10:+}' for pid, rss, _ in base)} KiB"


def test_all_streams_finish_and_none_is_mixed_up(build, model):
    with Cluster(build, model, 2) as c:
        asyncio.run(gather([Stream(c.port, "/v1/completions", chat(i)) for i in range(N)]))
        base = baseline(c)
        start = time.monotonic()
        streams = asyncio.run(gather([Stream(c.port, "/v1/completions", chat(i)) for i in range(N)]))
        seconds = time.monotonic() - start
        check_all(streams, 24)
        memory = back_at(c, base)
    return f"{N} streams, {N * 24 / seconds:.0f} tokens/s, {memory}"


async def vanish_all(port):
    streams = [Stream(port, "/v1/completions", chat(i, 400)) for i in range(N)]

    async def one(s):
        await s.open()
        await s.read(until=2)
        s.vanish()
    await asyncio.gather(*(one(s) for s in streams))


def test_clients_that_vanish_leave_nothing_behind(build, model):
    with Cluster(build, model, 2) as c:
        asyncio.run(vanish_all(c.port))
        base = baseline(c)
        asyncio.run(vanish_all(c.port))
        memory = back_at(c, base)
        metrics = request(c.port, "GET", "/metrics").body.decode()
        aborted = [x for x in metrics.splitlines() if 'finished_reason="abort"' in x]
        assert aborted and float(aborted[0].split()[-1]) >= N, aborted
    return f"{N} clients, {memory}"


async def kill_under_load(c, n, victim, max_tokens):
    streams = [Stream(c.port, "/v1/completions", chat(i, max_tokens)) for i in range(n)]
    task = asyncio.ensure_future(gather(streams))
    while sum(len(s.events) > 3 for s in streams) < n // 4 and not task.done():
        await asyncio.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    await asyncio.wait_for(task, 240)
    return streams


def test_a_killed_worker_breaks_no_stream_and_comes_back(build, model):
    n = 200 if FULL else 60
    with Cluster(build, model, 2) as c:
        whole = asyncio.run(gather([Stream(c.port, "/v1/completions", chat(i, 64)) for i in range(n)]))
        check_all(whole, 64)
        broken = asyncio.run(kill_under_load(c, n, c.workers[0], 64))
        check_all(broken, 64)
        for i, (a, b) in enumerate(zip(whole, broken)):
            assert a.text() == b.text() and a.ids() == b.ids(), f"stream {i} differs after the move"
        moved = [x for x in request(c.port, "GET", "/metrics").body.decode().splitlines()
                 if x.startswith("penstock_moves_total")]
        assert float(moved[0].split()[-1]) > 0, "nothing was moved: the kill came too late to prove anything"
        c.workers[0].wait()
        c.workers[0] = c.start_worker()
        c.wait_ready(2)
        again = asyncio.run(gather([Stream(c.port, "/v1/completions", chat(i, 16)) for i in range(n)]))
        check_all(again, 16)
        c.wait_idle()
    return f"{n} streams, {moved[0].split()[-1]} moved"


async def open_some(c, n):
    streams = [Stream(c.port, "/v1/completions", chat(i, 2000, min_tokens=2000)) for i in range(n)]
    await asyncio.gather(*(s.open() for s in streams))
    await asyncio.gather(*(s.read(until=2) for s in streams))
    return streams


def test_a_killed_router_frees_its_workers_which_join_the_next(build, model):
    async def run(c):
        await open_some(c, 20)
        c.router.send_signal(signal.SIGKILL)
        c.router.wait()
    with Cluster(build, model, 2) as c:
        asyncio.run(run(c))
        killed = time.monotonic()
        c.start_router()
        c.wait(lambda: c.n_live() == 2 and c.idle(), 15, "both workers joined the next router, idle")
        seconds = time.monotonic() - killed
        check_all(asyncio.run(gather([Stream(c.port, "/v1/completions", chat(i)) for i in range(8)])), 24)
    return f"{seconds:.1f} s"


def test_a_stopped_worker_is_left_and_taken_back(build, model):
    async def run(c):
        streams = [Stream(c.port, "/v1/completions", chat(i, 64)) for i in range(30)]
        task = asyncio.ensure_future(gather(streams))
        while sum(len(s.events) > 3 for s in streams) < 10 and not task.done():
            await asyncio.sleep(0.01)
        c.workers[1].send_signal(signal.SIGSTOP)
        await asyncio.wait_for(task, 120)
        c.workers[1].send_signal(signal.SIGCONT)
        return streams
    with Cluster(build, model, 2) as c:
        check_all(asyncio.run(run(c)), 64)
        c.wait_ready(2)
        c.wait_idle()


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    tap.run([test_all_streams_finish_and_none_is_mixed_up, test_clients_that_vanish_leave_nothing_behind,
             test_a_killed_worker_breaks_no_stream_and_comes_back,
             test_a_killed_router_frees_its_workers_which_join_the_next,
             test_a_stopped_worker_is_left_and_taken_back], *sys.argv[1:3])


main()
