"""Real processes for end-to-end tests: one router, some workers, on loopback, ended by their ids."""

import os
import signal
import socket
import subprocess
import tempfile
import time

from client import request

READY_S = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    """Use as a context manager. `build` is the Meson build directory."""

    def __init__(self, build, model, n_workers=1, router_args=(), worker_args=(), threads=1, name="m"):
        self.build, self.model, self.n_workers, self.name = build, model, n_workers, name
        self.router_args, self.worker_args, self.threads = list(router_args), list(worker_args), threads
        self.port, self.worker_port = free_port(), free_port()
        self.log = tempfile.TemporaryFile("w+")
        self.router, self.workers = None, []

    def __enter__(self):
        try:
            self.start_router()
            self.workers = [self.start_worker() for _ in range(self.n_workers)]
            self.wait_ready(self.n_workers)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _spawn(self, *cmd):
        return subprocess.Popen([str(c) for c in cmd], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def start_router(self):
        self.router = self._spawn(f"{self.build}/router/penstock-router", "--model", self.model, "--port", self.port,
                                  "--worker-port", self.worker_port, "--served-model-name", self.name,
                                  "--log-level", "warn", *self.router_args)

    def start_worker(self, *more):
        return self._spawn(f"{self.build}/worker/penstock-worker", "--model", self.model, "--router",
                           f"tcp://127.0.0.1:{self.worker_port}", "--threads", self.threads, "--served-model-name",
                           self.name, "--log-level", "warn", *self.worker_args, *more)

    def stats(self):
        return request(self.port, "GET", "/v1/stats").json()

    def n_live(self):
        try:
            return sum(w["state"] == "live" for w in self.stats()["workers"])
        except (OSError, ValueError):
            return 0

    def wait_ready(self, n):
        self.wait(lambda: self.n_live() >= n and request(self.port, "GET", "/ready").status == 200, READY_S,
                  f"{n} live workers")

    def wait(self, condition, seconds, what):
        """Bounded wait for a fact; the only kind of waiting tests do."""
        end = time.monotonic() + seconds
        while not condition():
            for p in [self.router, *self.workers]:
                if p is not None and p.poll() not in (None, -signal.SIGKILL) and what.endswith("live workers"):
                    raise AssertionError(f"a process ended with {p.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s for {what}:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self):
        self.log.seek(0)
        return "".join(self.log.readlines()[-30:])

    def idle(self):
        """Nothing runs or waits and no page is pinned, told by beats: a worker that just joined says zeros."""
        s = self.stats()
        return (all(w["kv_total_pages"] > 0 for w in s["workers"] if w["state"] == "live")
                and s["scheduler"]["active_requests"] == 0 and s["scheduler"]["queue_depth"] == 0
                and s["router"]["streams"] == 0
                and all(w["kv_pinned_pages"] == 0 for w in s["workers"] if w["state"] == "live"))

    def wait_idle(self, seconds=10):
        self.wait(self.idle, seconds, "an idle cluster")

    def stop(self):
        for p in [self.router, *self.workers]:
            if p is not None and p.poll() is None:
                p.terminate()
        for p in [self.router, *self.workers]:
            if p is None:
                continue
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.log.close()


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
