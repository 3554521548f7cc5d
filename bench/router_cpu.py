"""CPU that the router spends on a request, seen from outside: user and system time of its process.

Usage: router_cpu.py BUILD_DIR MODEL_DIR [N_REQUESTS]

Streams N chat requests over 32 connections at a time and reads the process's times before and after. The
workers run the real model; the router's share does not depend on how fast they are.
"""

import asyncio
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
from client import Stream, gather  # noqa: E402
from cluster import Cluster  # noqa: E402

AT_ONCE = 32


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return tuple(int(x) / os.sysconf("SC_CLK_TCK") for x in fields[11:13])


def measure(c, n, body, path):
    streams = [Stream(c.port, path, dict(body, seed=i)) for i in range(n)]
    u0, s0 = cpu_seconds(c.router.pid)
    t0 = time.monotonic()
    asyncio.run(gather(streams, AT_ONCE))
    wall = time.monotonic() - t0
    u1, s1 = cpu_seconds(c.router.pid)
    assert all(s.done and s.error is None for s in streams)
    tokens = sum(len(s.ids()) for s in streams)
    return u1 - u0, s1 - s0, wall, tokens


def main():
    build, model = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    question = [{"role": "user", "content": "How do I add a worker?"}]
    chat = {"messages": question, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    print("| request | n | tokens | router user s | system s | us / request | us / token | wall s |")
    print("|---|---|---|---|---|---|---|---|")
    with Cluster(build, model, 2) as c:
        asyncio.run(gather([Stream(c.port, "/v1/chat/completions", dict(chat, max_tokens=4)) for _ in range(64)]))
        for name, m in (("chat, 1 token", 1), ("chat, 16 tokens", 16), ("chat, 64 tokens", 64)):
            u, s, wall, tokens = measure(c, n, dict(chat, max_tokens=m), "/v1/chat/completions")
            print(f"| {name} | {n} | {tokens} | {u:.2f} | {s:.2f} | {(u + s) / n * 1e6:.0f} | "
                  f"{(u + s) / tokens * 1e6:.1f} | {wall:.1f} |", flush=True)


main()
