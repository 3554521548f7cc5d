"""KV tiers whose devices hang, fail, fill up, lie and vanish: serving goes on and every answer stays the same.

Usage: kv_test.py BUILD_DIR MODEL_DIR       (PENSTOCK_FULL=1: the disk hangs for 30 s, else 6 s)

The workers simulate (--device sim): a token follows from the exact tokens before it, and a page that does not hold
what it should ends the worker, so answers equal to those of a worker without tiers prove that every page was right.
"""

import asyncio
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import tap
from client import Stream, gather, request
from cluster import Cluster, free_port

FULL = os.environ.get("PENSTOCK_FULL") == "1"
ITEM = 64 << 10  # bytes of a page of 16 tokens
PAGES = 32  # of a prompt
N = 24  # prompts; 48 MiB of pages
ANSWER = 8
# A step takes 2 ms, a prompt token 0.1 ms: a whole prompt takes 52 ms, and moving its 2 MiB is much cheaper.
COST = "base=2000,row=10,prefill=100,kv=0,pair=0"
state = {}


def make_prompts():
    rng = random.Random(11)
    return [[rng.randrange(3, 2000) for _ in range(PAGES * 16 + 5)] for _ in range(N)]


def mib(n):
    return f"{n}MiB"


class Tiers(Cluster):
    """One simulating worker, started by `before` when that is given."""

    def __init__(self, *args, cost=COST, router_args=(), before=()):
        super().__init__(state["build"], state["model"], 1, ["--drain-grace", 0, *router_args], [
            "--device", "sim", "--sim-item-bytes", ITEM, "--sim-cost", cost, "--max-seqs", 16, *args])
        self.before = list(before)

    def _spawn(self, *cmd):
        if "worker" in os.path.basename(str(cmd[0])):
            cmd = (*self.before, *cmd)
        return super()._spawn(*cmd)


# T0 and T1 together hold less than half of the prompts.
T0, T1 = ["--kv-bytes", mib(10)], ["--kv-host-bytes", mib(10)]


def body(i, **more):
    return {"prompt": state["prompts"][i], "max_tokens": ANSWER, "temperature": 0, "return_token_ids": True,
            "ignore_eos": True, **more}


def same(i, s, n=ANSWER):
    assert s.error is None and s.done, f"prompt {i}: {s.error}"
    assert s.ids() == state["alone"][i][:n], f"prompt {i}: {s.ids()} is not {state['alone'][i][:n]}"


def ask(c, which, at_once=6, **more):
    """Every answer is checked."""
    streams = [Stream(c.port, "/v1/completions", body(i, **more)) for i in which]
    asyncio.run(gather(streams, at_once))
    for i, s in zip(which, streams):
        same(i, s, more.get("max_tokens", ANSWER))


def timed(c, which):
    """Milliseconds of each, one after the other."""
    out = []
    for i in which:
        start = time.monotonic()
        ask(c, [i])
        out.append((time.monotonic() - start) * 1000)
    return out


def hits(c):
    c.wait_idle()
    return c.stats()["prefix_cache"]["hit_tokens"]


def hits_of(c, f, *args):
    before = hits(c)
    f(*args)
    return hits(c) - before


def logged(c, text):
    """Lines of the log that hold this text."""
    c.log.seek(0)
    return [x for x in c.log.readlines() if text in x]


def wait_logged(c, text, seconds=10):
    c.wait(lambda: logged(c, text), seconds, f"a log line with '{text}'")


def counted(c, key, tier=None):
    """A counter of the worker's KV store, or of one of its tiers; it is told every second or so."""
    w = next(w for w in c.stats()["workers"] if w["state"] == "live")
    return w[key] if tier is None else next(t for t in w["kv_tiers"] if t["tier"] == tier)[key]


def wait_counted(c, key, tier=None):
    c.wait(lambda: counted(c, key, tier) > 0, 10, f"{key} of {tier or 'the store'}")


def warm(c, rounds=2):
    for _ in range(rounds):
        ask(c, range(N))


def slots_of(path):
    """Slots of T2 that have been written."""
    with open(path, "rb") as f:
        f.seek(4096)
        n = 0
        while head := f.read(8):
            n += any(head)
            f.seek(ITEM + 4096 - 8, os.SEEK_CUR)
    return n


def leave(c, seconds):
    """SIGTERM to the worker: it goes in time, with status 0."""
    w, start = c.workers[0], time.monotonic()
    w.terminate()
    try:
        w.wait(seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the worker did not leave within {seconds} s:\n{c.tail()}") from None
    assert w.returncode == 0, f"status {w.returncode}:\n{c.tail()}"
    return time.monotonic() - start


# ---- the tests ----


def test_without_tiers_is_the_reference(_):
    with Tiers("--sim-time", "fast", "--kv-bytes", mib(10)) as c:
        streams = [Stream(c.port, "/v1/completions", body(i, max_tokens=200)) for i in range(N)]
        asyncio.run(gather(streams, 4))
        state["alone"] = [s.ids() for s in streams]
    assert all(len(a) == 200 for a in state["alone"]) and len({tuple(a[:ANSWER]) for a in state["alone"]}) == N


def test_a_disk_that_hangs_delays_nobody_whose_pages_are_in_memory(tmp):
    at, span = 6, 30 if FULL else 6
    disk = ["--kv-disk", f"{tmp}/t2", "--kv-disk-bytes", mib(128), "--inject-disk-hang", f"{at}:{span}"]
    begin = time.monotonic()
    # Room in T0 for those who wait as well: the test is about the disk.
    with Tiers("--kv-bytes", mib(18), "--kv-host-bytes", mib(6), *disk) as c:
        warm(c)
        c.wait(lambda: slots_of(f"{tmp}/t2") > PAGES * N // 2, 5, "pages on the disk")
        hot, cold = range(N - 3, N), range(6)
        ask(c, hot)
        before = timed(c, hot)
        assert hits_of(c, ask, c, cold[:2]) > PAGES * 16, "nothing was found on the disk"
        ask(c, hot)
        assert time.monotonic() < begin + at, "warming took until the hang: raise `at`"
        c.wait(lambda: time.monotonic() > begin + at + 0.7, 10, "the hang")  # the worker's clock began later
        computed = asyncio.run(overlap(c, cold[2:], hot))
        during = state["during"]
        wait_counted(c, "n_fetch_late")
        assert time.monotonic() < begin + at + span, "that took until the end of the hang"
        c.wait(lambda: time.monotonic() > begin + at + span + 1, span + 10, "the end of the hang")
        warm(c, 1)
        after = hits_of(c, ask, c, cold[:2])
        assert after > 0, "the disk is not used any more"
        took = leave(c, 10)
    # A step of theirs may hold 256 tokens of somebody who computes: 28 ms instead of 2.
    assert max(during) < 3 * max(before) + 300, f"hot requests took {during} ms during the hang, {before} before"
    assert max(computed) < 3000, f"requests whose pages hang took {computed} ms"
    return (f"hot {max(before):.0f} ms before, {max(during):.0f} ms during; computed instead in {max(computed):.0f} ms; "
            f"left in {took:.1f} s")


async def overlap(c, cold, hot):
    """Hot requests one after the other, beside all cold ones at once; returns milliseconds of the cold ones."""
    async def one(i):
        s, start = Stream(c.port, "/v1/completions", body(i)), time.monotonic()
        await s.run()
        same(i, s)
        return (time.monotonic() - start) * 1000

    tasks = [asyncio.ensure_future(one(i)) for i in cold]
    state["during"] = [await one(i) for i in hot]
    return await asyncio.wait_for(asyncio.gather(*tasks), 60)


def test_a_shared_directory_that_hangs_for_ever_harms_neither_serving_nor_leaving(tmp):
    at = 3
    begin = time.monotonic()
    with Tiers(*T0, *T1, "--kv-share", tmp, "--inject-share-hang", f"{at}:0") as c:
        warm(c)
        c.wait(lambda: time.monotonic() > begin + at + 0.7, 10, "the hang")
        start = time.monotonic()
        warm(c)
        slow = (time.monotonic() - start) * 1000 / (2 * N)
        stream = Stream(c.port, "/v1/completions", body(0, max_tokens=200))

        async def drain():
            task = asyncio.ensure_future(stream.run())
            while len(stream.events) < 3 and not task.done():
                await asyncio.sleep(0.01)
            c.workers[0].terminate()
            await asyncio.wait_for(task, 20)

        asyncio.run(drain())
        same(0, stream, 200)  # it ran to its end before the worker left
        took = leave(c, 8)
    return f"{slow:.0f} ms a request, left in {took:.1f} s"


def limited(n_bytes):
    """A program that cannot write files beyond so many bytes: as on a full disk a write fails, with EFBIG."""
    return ["prlimit", f"--fsize={n_bytes}"]


def obedient():
    """A program that obeys file modes even when root runs the test."""
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def test_a_disk_too_small_for_the_file_gives_a_smaller_tier(tmp):
    with Tiers(*T0, *T1, "--kv-disk", f"{tmp}/t2", "--kv-disk-bytes", mib(128), before=limited(4 << 20)) as c:
        warm(c, 3)
        assert len(logged(c, "disk too small")) == 1, c.tail()
        leave(c, 10)


def test_a_full_shared_directory_ends_writing_there_and_nothing_else(tmp):
    # A file system of 4 MiB that only the worker sees; where that is not allowed, files of at most 256 KiB.
    small = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=4m none {tmp} && exec "$@"', "sh"]
    can = subprocess.run([*small, "true"], capture_output=True).returncode == 0
    with Tiers(*T0, *T1, "--kv-share", tmp, before=small if can else limited(256 << 10)) as c:
        warm(c, 3)
        assert len(logged(c, "t3 fails")) == 1, c.tail()
        wait_counted(c, "n_full" if can else "n_fault", "t3")
        leave(c, 15)
    return "a file system of 4 MiB" if can else "files of 256 KiB"


def test_a_shared_directory_removed_while_it_is_used(tmp):
    share = f"{tmp}/t3"
    os.mkdir(share)
    with Tiers(*T0, *T1, "--kv-share", share) as c:
        warm(c)
        shutil.rmtree(share)
        warm(c)
        wait_counted(c, "n_fault", "t3")
        assert len(logged(c, "t3 fails")) == 1, c.tail()
        leave(c, 15)


def test_a_shared_directory_made_read_only_still_gives(tmp):
    share = f"{tmp}/t3"
    os.mkdir(share)
    with Tiers(*T0, *T1, "--kv-share", share, before=obedient()) as c:
        for _ in range(2):
            ask(c, range(N // 2))
        c.wait(lambda: n_objects(share) > N // 4, 10, "objects")
        folders = [d for d, _, _ in os.walk(share)]
        for d in folders:
            os.chmod(d, 0o555)
        again = hits_of(c, ask, c, range(N // 2))
        warm(c)
        assert len(logged(c, "t3 fails")) == 1, c.tail()
        wait_counted(c, "n_fault", "t3")
        leave(c, 15)
        for d in folders:
            os.chmod(d, 0o755)
    assert again > 0, "nothing was found"
    return f"{again} of {N // 2 * PAGES * 16} tokens found"


def n_objects(share):
    return sum(len(files) for d, _, files in os.walk(share) if "trash" not in d)


def test_a_file_of_something_else_is_left_alone_and_a_damaged_one_started_over(tmp):
    path = f"{tmp}/t2"
    noise = random.Random(5).randbytes(1 << 20)
    with open(path, "wb") as f:
        f.write(noise)
    done = subprocess.run([f"{state['build']}/worker/penstock-worker", "--model", state["model"], "--device", "sim",
                           "--sim-item-bytes", str(ITEM), *T0, *T1, "--kv-disk", path, "--kv-disk-bytes", mib(64)],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "holds something else" in done.stderr, done
    with open(path, "rb") as f:
        assert f.read() == noise
    os.unlink(path)
    with Tiers(*T0, *T1, "--kv-disk", path, "--kv-disk-bytes", mib(64)) as c:
        warm(c)
        leave(c, 15)
    with open(path, "r+b") as f:  # its magic number stays
        f.seek(64)
        f.write(noise[:128])
    with Tiers(*T0, *T1, "--kv-disk", path, "--kv-disk-bytes", mib(64)) as c:
        assert len(logged(c, "disk tier started over")) == 1, c.tail()
        warm(c)
        leave(c, 15)


def flip(path, offset, step):
    """Damages a byte every so often."""
    with open(path, "r+b") as f:
        size = os.fstat(f.fileno()).st_size
        for at in range(offset, size, step):
            f.seek(at)
            b = f.read(1)
            f.seek(at)
            f.write(bytes([b[0] ^ 0x55]))


def after_damage(c, tier, damage):
    """Tokens found and pages that proved bad, of N prompts after the tier was damaged."""
    damage()
    found = hits_of(c, ask, c, range(N))
    wait_counted(c, "n_bad", tier)
    bad = counted(c, "n_bad", tier)
    assert 0 < found < N * PAGES * 16, f"{tier}: {found} tokens found, {bad} bad pages"
    leave(c, 15)
    return f"{tier}: {found} of {N * PAGES * 16} tokens found, {bad} bad pages"


def test_flipped_bytes_on_disk_and_in_the_shared_directory_are_never_served(tmp):
    path, share = f"{tmp}/t2", f"{tmp}/t3"
    os.mkdir(share)

    def damage_objects():
        for i, f in enumerate(sorted(glob.glob(f"{share}/**/*", recursive=True))):
            if os.path.isfile(f) and i % 2:
                flip(f, 8192, 1 << 17)

    with Tiers(*T0, *T1, "--kv-disk", path, "--kv-disk-bytes", mib(128)) as c:
        warm(c)
        c.wait(lambda: slots_of(path) > N * PAGES // 2, 10, "pages on disk")
        # Every 64th: what follows a bad page is computed, too.
        t2 = after_damage(c, "t2", lambda: flip(path, 4096 + 8192, 64 * (ITEM + 4096)))
    with Tiers(*T0, *T1, "--kv-share", share) as c:
        warm(c)
        c.wait(lambda: n_objects(share) > N // 2, 10, "objects")
        return f"{t2}; {after_damage(c, 't3', damage_objects)}"


def test_kill_9_in_the_middle_of_cleaning_loses_no_page_that_was_written(tmp):
    path = f"{tmp}/t2"

    async def until_half(c, streams):
        task = asyncio.ensure_future(gather(streams, 8))
        while sum(s.done for s in streams) < len(streams) // 2 and not task.done():
            await asyncio.sleep(0.002)
        c.workers[0].send_signal(signal.SIGKILL)
        c.workers[0].wait()
        c.workers[0] = c.start_worker()
        await asyncio.wait_for(task, 60)

    with Tiers(*T0, *T1, "--kv-disk", path, "--kv-disk-bytes", mib(128),
             router_args=["--max-moves", "20", "--move-wait", "60"]) as c:
        found = []
        for _ in range(3):
            streams = [Stream(c.port, "/v1/completions", body(i)) for i in range(N)]
            asyncio.run(until_half(c, streams))
            for i, s in enumerate(streams):
                same(i, s)
            c.wait_ready(1)
            ask(c, range(N))
            found.append(slots_of(path))
        c.workers[0].send_signal(signal.SIGKILL)
        c.workers[0].wait()
        c.wait(lambda: c.n_live() == 0, 60, "the router to miss the worker")
        c.workers[0] = c.start_worker()
        c.wait_ready(1)
        again = hits_of(c, ask, c, range(N))
        leave(c, 15)
    assert again > N * PAGES * 16 // 4, f"after kill -9 only {again} tokens were found; slots written: {found}"
    return f"{again} of {N * PAGES * 16} tokens found after the last kill"


def fetches(path):
    """Milliseconds that each request of a trace waited for its pages."""
    begun, out = {}, []
    with open(path) as f:
        for line in f:
            if '"name":"fetch"' not in line:
                continue
            e = json.loads(line.strip().rstrip(","))
            if e["ph"] == "b":
                begun[e["id"]] = e["ts"]
            else:
                out.append((e["ts"] - begun[e["id"]]) / 1000)
    return sorted(out)


def test_pages_in_host_memory_are_fetched_at_once(tmp):
    with Tiers("--kv-bytes", mib(10), "--kv-host-bytes", mib(64), "--trace", f"{tmp}/trace") as c:
        ask(c, range(N))
        ask(c, range(N), at_once=1)
        leave(c, 15)
    ms = fetches(f"{tmp}/trace")
    # Nothing but the turn after the next event may begin a move: a timer of 20 ms would show in all of them.
    assert len(ms) > N // 2 and ms[0] < 10, ms
    return f"{len(ms)} fetches of 2 MiB, {ms[len(ms) // 2]:.1f} ms in the middle"


def test_suspensions_with_tiers_below(tmp):
    with Tiers("--kv-bytes", mib(10), "--kv-host-bytes", mib(6), "--growth-reserve", 16, "--kv-disk", f"{tmp}/t2",
             "--kv-disk-bytes", mib(128), cost="base=500,row=10,prefill=100,kv=0,pair=0") as c:
        for _ in range(2):
            ask(c, range(N), 16, max_tokens=200)
        c.wait_idle()
        metrics = request(c.port, "GET", "/metrics").body.decode()
        n = [float(x.split()[-1]) for x in metrics.splitlines() if x.startswith("penstock_preemptions{")][0]
        leave(c, 15)
    assert n > 0, "nothing was suspended"
    return f"{n:.0f} suspensions"


def test_a_peer_gives_until_it_is_killed(tmp):
    address = f"127.0.0.1:{free_port()}"
    with Tiers("--kv-bytes", mib(64), "--kv-host-bytes", mib(64), "--kv-peer-listen", address) as a:
        warm(a)
        with Tiers(*T0, *T1, "--kv-peer", address) as b:
            first = hits_of(b, ask, b, range(8))
            assert first > 4 * PAGES * 16, f"only {first} tokens came from the peer"

            async def cut():
                streams = [Stream(b.port, "/v1/completions", body(i)) for i in range(N)]
                task = asyncio.ensure_future(gather(streams, 4))
                while sum(s.done for s in streams) < N // 2 and not task.done():
                    await asyncio.sleep(0.002)
                a.workers[0].kill()
                await asyncio.wait_for(task, 60)
                for i, s in enumerate(streams):
                    same(i, s)

            asyncio.run(cut())
            start = time.monotonic()
            ask(b, range(N))
            rest = (time.monotonic() - start) * 1000 / N
            a.workers[0].wait()
            a.wait(lambda: a.n_live() == 0, 60, "the router to miss the worker")
            a.workers[0] = a.start_worker()
            a.wait_ready(1)
            warm(a)
            b.wait(lambda: hits_of(b, ask, b, range(N)) > N // 2 * PAGES * 16, 20, "the peer to be found again")
            leave(b, 10)
    return f"{first} of {8 * PAGES * 16} tokens from it; without it {rest:.0f} ms a request"


def secret(tmp, name):
    path = f"{tmp}/{name}"
    with open(path, "w") as f:
        f.write(f"{name}-0123456789abcdef0123456789abcdef\n")
    os.chmod(path, 0o600)
    return ["--kv-peer-secret-file", path]


def test_a_peer_with_another_secret_or_model_gives_nothing(tmp):
    address = f"127.0.0.1:{free_port()}"
    with Tiers("--kv-bytes", mib(64), "--kv-host-bytes", mib(64), "--kv-peer-listen", address,
             *secret(tmp, "ours")) as a:
        warm(a)
        with Tiers(*T0, *T1, "--kv-peer", address, *secret(tmp, "ours")) as b:
            assert hits_of(b, ask, b, range(4)) > 0, "the right secret gave nothing"
        with Tiers(*T0, *T1, "--kv-peer", address, *secret(tmp, "theirs")) as b:
            assert hits_of(b, ask, b, range(4)) == 0
            wait_logged(b, "a peer gives nothing")
        with Tiers("--kv-bytes", mib(10), "--kv-host-bytes", mib(10), "--sim-eos", "1e-9", "--kv-peer", address,
                 *secret(tmp, "ours")) as b:  # another arithmetic, to others
            assert hits_of(b, ask, b, range(4)) == 0
            wait_logged(b, "a peer gives nothing")
        ask(a, range(4))


def test_two_workers_share_a_directory(tmp):
    with Tiers(*T0, *T1, "--kv-share", tmp) as a, Tiers(*T0, *T1, "--kv-share", tmp) as b:
        warm(a)
        a.wait(lambda: n_objects(tmp) > N // 2, 10, "objects")
        found = hits_of(b, ask, b, range(N))

        async def both():
            streams = [Stream(c.port, "/v1/completions", body(i)) for i in range(N) for c in (a, b)]
            await gather(streams, 8)
            for k, s in enumerate(streams):
                same(k // 2, s)

        asyncio.run(both())
        leave(a, 15)
        leave(b, 15)
    assert found > N * PAGES * 16 // 4, f"the second worker found {found} tokens of the first"
    return f"the second worker found {found} of {N * PAGES * 16} tokens"


def in_a_folder(test):
    def run():
        with tempfile.TemporaryDirectory(dir=state["work"]) as tmp:
            return test(tmp)
    run.__name__ = test.__name__
    return run


def main():
    only = sys.argv[3:]
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, "model")
        os.mkdir(model)
        for name in os.listdir(sys.argv[2]):
            if not name.endswith(".safetensors"):
                shutil.copy(os.path.join(sys.argv[2], name), model)
        state.update(build=sys.argv[1], model=model, work=work, prompts=make_prompts())
        tests = [v for k, v in globals().items() if k.startswith("test_")]
        tap.run([in_a_folder(t) for t in tests if not only or "reference" in t.__name__
                 or any(x in t.__name__ for x in only)])


if __name__ == "__main__":
    main()
