#!/usr/bin/env python3
"""Drives real worker and router processes through kills, stops and lost messages.

Every stream is checked token by token inside the drivers. This observer times what nobody wants:
attempts open on a worker whose driver does not want them (orphans), and compares both sides' open
sets after the last fault. Times while a process was stopped by us do not count.
"""
import argparse
import mmap
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HEAD, SLOT, SLOTS = 128, 24, 512
INJECT = "seed=%d,drop=0.01,dup=0.01,delay=0.009,delay_ms=60,late=0.001,late_ms=1500"
POLL_S = 0.02
OUTAGE_S, OUTAGE_EVERY_S = 6.0, 30.0
# Generous: the machine may be busy. What was measured is printed.
ORPHAN_MAX_S, ORPHAN_DEAD_MAX_S, CONVERGE_MAX_S = 3.5, 4.5, 2.5


class Proc:
    """One process that is restarted for as long as the run lasts."""

    def __init__(self, kind, argv, table, env_dir):
        self.kind, self.argv, self.table = kind, argv, table
        self.log = open(os.path.join(env_dir, os.path.basename(table) + ".log"), "wb")
        self.p, self.map, self.stopped, self.base = None, None, False, [0] * 6
        self.start()

    def start(self):
        self.map = None  # before the file is cut: a mapped file must not shrink
        with open(self.table, "wb") as f:
            f.write(b"\0" * (HEAD + SLOT * SLOTS))
        self.p = subprocess.Popen(self.argv, stderr=self.log)
        self.since = time.monotonic()
        self.stopped = False

    def read(self):
        """(tag, counters, {(tag, req, attempt)})"""
        if self.map is None:
            try:
                with open(self.table, "rb") as f:
                    self.map = mmap.mmap(f.fileno(), HEAD + SLOT * SLOTS, prot=mmap.PROT_READ)
            except (ValueError, OSError):
                return 0, [0] * 6, set()
        raw = self.map[:]
        head = struct.unpack_from("<8Q", raw)
        entries = {
            (t, r, a)
            for t, r, a, used in struct.iter_unpack("<QQII", raw[HEAD:])
            if used
        }
        return head[0], list(head[1:7]), entries

    def counters(self):
        return [a + b for a, b in zip(self.base, self.read()[1])]

    def kill(self):
        self.base = self.counters()
        self.p.kill()
        self.p.wait()
        self.p = None


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


class Observer:
    def __init__(self, workers, drivers):
        self.workers, self.drivers = workers, drivers
        self.age = {}
        self.last = time.monotonic()
        self.max_alive = self.max_dead = self.late = 0.0
        self.n_orphans = 0

    def look(self):
        """Adds the time since the last look to every orphan; returns those that are there now."""
        now = time.monotonic()
        dt, self.last = now - self.last, now
        open_now = {}
        for w in self.workers:
            if w.p is not None:
                for key in w.read()[2]:
                    open_now[(w.table,) + key] = w
        wanted, alive = set(), {}
        for d in self.drivers:
            if d.p is not None:
                tag, _, entries = d.read()
                wanted |= entries
                alive[tag] = d
        orphans = {k: w for k, w in open_now.items() if k[1:] not in wanted}
        age = {}
        for k, w in orphans.items():
            d = alive.get(k[1])
            still = w.stopped or (d is not None and d.stopped)
            age[k] = self.age.get(k, 0.0) + (0.0 if still or k not in self.age else dt)
            if d is not None:
                self.max_alive = max(self.max_alive, age[k])
            else:
                self.max_dead = max(self.max_dead, age[k])
        self.n_orphans += len(set(age) - set(self.age))
        self.age = age
        return age


def fault(rng, workers, drivers, later, counts):
    """One random fault; `later` gets what ends it."""
    kind = rng.choices(["kill_w", "kill_r", "stop_w", "stop_r", "term_w"], [5, 2, 4, 3, 1])[0]
    p = rng.choice(drivers if kind.endswith("_r") else workers)
    if p.p is None or p.stopped:
        return
    counts[kind] = counts.get(kind, 0) + 1
    now = time.monotonic()
    if kind.startswith("stop"):
        p.p.send_signal(signal.SIGSTOP)
        p.stopped = True
        later.append((now + rng.choice([0.1, 0.4, 0.8, 2.5, 4.0]), "cont", p))
    else:
        if kind == "term_w":
            p.p.terminate()
            p.p.wait()
            p.p = None
        else:
            p.kill()
        later.append((now + rng.uniform(0, 1.5), "start", p))


def long_outage(drivers, later, counts):
    """A router that stays away longer than its workers wait for it."""
    p = next((d for d in drivers if d.p is not None and not d.stopped), None)
    if p is None:
        return False
    p.kill()
    later.append((time.monotonic() + OUTAGE_S, "start", p))
    counts["outage_r"] = counts.get("outage_r", 0) + 1
    return True


def end_due(later, now):
    for item in [i for i in later if i[0] <= now]:
        later.remove(item)
        _, what, p = item
        if what == "cont":
            p.p.send_signal(signal.SIGCONT)
            p.stopped = False
        else:
            p.start()


def check_alive(procs):
    for p in procs:
        if p.p is not None and p.p.poll() is not None:
            raise SystemExit(f"{p.argv[0]} ended by itself: {p.p.returncode}, log {p.log.name}")


def converge(obs, procs, seconds):
    """After the last fault: how long until no attempt older than half a second is unwanted."""
    t0, last = time.monotonic(), 0.0
    obs.age = {}
    while time.monotonic() - t0 < seconds:
        if any(a > 0.5 for a in obs.look().values()):
            last = time.monotonic() - t0
        check_alive(procs)
        time.sleep(POLL_S)
    return last


def finish(drivers, workers):
    bad = []
    for d in drivers:
        d.p.terminate()
    for d in drivers:
        if d.p.wait(timeout=90) != 0:
            bad.append(f"driver {d.table}: exit {d.p.returncode}, log {d.log.name}")
    t0 = time.monotonic()
    for d in drivers:
        d.p = None
    while any(w.read()[2] for w in workers) and time.monotonic() - t0 < 5:
        time.sleep(POLL_S)
    left = sum(len(w.read()[2]) for w in workers)
    if left:
        bad.append(f"{left} attempts left open on workers")
    for w in workers:
        w.p.terminate()
        if w.p.wait(timeout=20) != 0:
            bad.append(f"worker {w.table}: exit {w.p.returncode}")
    return bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("bin", help="directory of wire_worker and wire_drive")
    ap.add_argument("--requests", type=int, default=2000)
    ap.add_argument("--min-seconds", type=float, default=20)
    ap.add_argument("--max-seconds", type=float, default=900)
    ap.add_argument("--workers", type=int, default=3)
    ap.add_argument("--routers", type=int, default=2)
    ap.add_argument("--streams", type=int, default=48)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--inject", default=INJECT)
    ap.add_argument("--fault-every", type=float, default=0.8)
    a = ap.parse_args()
    rng = random.Random(a.seed)
    tmp = tempfile.mkdtemp(prefix="wire_test_")
    ports = free_ports(a.routers)
    inject = lambda i: a.inject % (a.seed * 100 + i) if "%d" in a.inject else a.inject
    drivers = [
        Proc("r", [os.path.join(a.bin, "wire_drive"), str(p), str(i + 1), str(a.streams),
                   f"{tmp}/r{i}", inject(i)], f"{tmp}/r{i}", tmp)
        for i, p in enumerate(ports)
    ]
    workers = [
        Proc("w", [os.path.join(a.bin, "wire_worker"), str(i + 1), "1500", f"{tmp}/w{i}",
                   inject(50 + i)] + [f"tcp://127.0.0.1:{p}" for p in ports], f"{tmp}/w{i}", tmp)
        for i in range(a.workers)
    ]
    procs, later, counts = drivers + workers, [], {}
    obs = Observer(workers, drivers)
    t0 = time.monotonic()
    next_fault, next_outage = t0 + 2, t0 + 5
    try:
        while True:
            now = time.monotonic()
            done = sum(d.counters()[0] if d.p else d.base[0] for d in drivers)
            if now - t0 > a.min_seconds and done >= a.requests:
                break
            if now - t0 > a.max_seconds:
                raise SystemExit(f"only {done} requests in {a.max_seconds} s, logs in {tmp}")
            if now >= next_fault:
                fault(rng, workers, drivers, later, counts)
                next_fault = now + rng.expovariate(1 / a.fault_every)
            if now >= next_outage and long_outage(drivers, later, counts):
                next_outage = now + OUTAGE_EVERY_S
            end_due(later, now)
            check_alive(procs)
            obs.look()
            time.sleep(POLL_S)
        for item in later:
            end_due([item], float("inf"))
        took = converge(obs, procs, 4.0)
        totals = [sum(x) for x in zip(*(d.counters() for d in drivers))]
        bad = finish(drivers, workers)
    finally:
        for p in procs:
            if p.p is not None and p.p.poll() is None:
                p.p.kill()
    names = ["completed", "wrong", "lost", "rejected", "cancelled", "tokens"]
    print(" ".join(f"{n}={v}" for n, v in zip(names, totals)))
    print(f"seconds={time.monotonic() - t0:.0f} faults={sum(counts.values())} {counts}")
    print(f"orphans={obs.n_orphans} longest_router_alive={obs.max_alive:.2f}s "
          f"longest_router_dead={obs.max_dead:.2f}s converged_after={took:.2f}s")
    if totals[1]:
        bad.append(f"{totals[1]} wrong events, logs in {tmp}")
    if obs.max_alive > ORPHAN_MAX_S or obs.max_dead > ORPHAN_DEAD_MAX_S:
        bad.append("an orphan lived too long")
    if took > CONVERGE_MAX_S:
        bad.append("the open sets did not become equal")
    for b in bad:
        print("FAILED:", b)
    if not bad:
        shutil.rmtree(tmp)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
