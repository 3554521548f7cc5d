"""Whether a step ever waits for I/O: step times with KV tiers thrashing, and without tiers.

Usage: step_io.py BUILD_DIR [options]     (step_io.py --help)

Both arms serve the same: streams that decode all the time, and beside them requests that begin with one of a set of
warm prefixes. In arm A T0 is small: every warm prefix comes up from T1, T2 or T3, and what the streams leave goes
down. In arm B T0 holds everything and there are no tiers. The arms alternate. Read from the worker's --trace: the
times between the ends of steps while at least --rows rows decode, and how much longer than the step itself they were;
penstock-load sees the same as gaps between tokens. Exit status: 0 when the p99 of arm A is within --bound of arm B's.

The simulated device computes nothing while it waits, so there the tiers' threads have the cores to themselves. With
--device cpu they share them with the model: what arm A costs there is processor time and memory bandwidth as well.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tests", "e2e")]
from cluster import Cluster  # noqa: E402
import w4  # noqa: E402

PAGE = 16
TIERS = ["t1", "t2", "t3"]


def pages(n_tokens):
    return -(-n_tokens // PAGE)


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = tempfile.mkdtemp(prefix="penstock-step-", dir=args.work)
        self.model = args.model
        if args.device == "cpu" and not self.model:
            self.model = w4.make_model(self.work)
        with open(os.path.join(self.model, "config.json")) as f:
            self.vocab = json.load(f)["vocab_size"]
        self.page_bytes = args.item_bytes if args.device == "sim" else w4.Bench.measure_page(self)
        # Streams of half to one and a half times --answer tokens: they do not end together.
        self.answer = f"{args.answer // 2}-{args.answer * 3 // 2}"
        self.n_decode = args.streams * pages(args.prompt + args.answer + PAGE)  # at most that, nearly always
        self.n_prefix = pages(args.prefix)

    def cluster(self, worker_args):
        device = ["--device", self.args.device]
        if self.args.device == "sim":
            device += ["--sim-item-bytes", self.args.item_bytes, "--sim-cost", self.args.cost]
        return Cluster(self.args.build, self.model, 1, ["--drain-grace", 0], [
            *device, "--max-seqs", 2 * self.args.streams, "--growth-reserve", 64, *worker_args],
            threads=self.args.threads)

    def arm_args(self, arm, folder):
        every = (self.args.prefixes + self.args.often) * self.n_prefix
        size = lambda n: ["--kv-bytes", n * self.page_bytes]  # noqa: E731
        if arm == "B":  # what the streams leave stays too, for as long as the run may take
            return size(4 * self.n_decode + 2 * every)
        return [*size(self.n_decode + self.args.t0 * self.n_prefix),
                "--kv-host-bytes", self.args.t1 * self.n_prefix * self.page_bytes,
                "--kv-disk", f"{folder}/t2", "--kv-disk-bytes", int(self.args.t2 * every) * self.page_bytes,
                "--kv-share", f"{folder}/t3"]

    def load(self, port, name, *options):
        a = self.args
        return subprocess.Popen([str(x) for x in [
            f"{a.build}/bench/penstock-load", "--target", f"127.0.0.1:{port}", "--vocab", self.vocab, "--json",
            f"{self.work}/{name}.json", *options]], stdout=subprocess.DEVNULL)

    def warm(self, port, name, n, *options):
        """Requests that begin with n prefixes in turn; the name draws the prefixes."""
        a = self.args
        return self.load(port, name, "--prefix-groups", n, "--prefix-tokens", a.prefix, "--prompt-tokens",
                         a.prefix + 8, "--output-tokens", 4, "--seed", len(name), *options)

    def fill(self, c, name, n):
        """Until nothing of the prefixes is computed any more."""
        for _ in range(8):
            t = self.finish(name, self.warm(c.port, name, n, "--requests", n, "--concurrency", 2))["tokens"]
            if t["cached"] >= 0.99 * n * self.n_prefix * PAGE:
                return
        print(f"{name}: only {t['cached']} of {n * self.args.prefix} tokens are found", file=sys.stderr)

    def finish(self, name, p):
        if p.wait(600) != 0:
            raise SystemExit(f"{name}: penstock-load ended with {p.returncode}")
        with open(f"{self.work}/{name}.json") as f:
            return json.load(f)

    def run(self, arm):
        a = self.args
        folder = tempfile.mkdtemp(dir=self.work)
        os.mkdir(f"{folder}/t3")
        trace = f"{folder}/trace.json"
        try:
            with self.cluster([*self.arm_args(arm, folder), "--trace", trace]) as c:
                for name, n in (("seldom", a.prefixes), ("often", a.often)):
                    self.fill(c, name, n)
                before = self.tiers(c)
                run = ["--duration", a.seconds, "--concurrency", a.streams]
                loads = {
                    "streams": self.load(c.port, "streams", *run, "--prompt-tokens", a.prompt, "--output-tokens",
                                         self.answer, "--seed", 8),
                    "seldom": self.warm(c.port, "seldom", a.prefixes, *run, "--rate", a.rate),
                    "often": self.warm(c.port, "often", a.often, *run, "--rate", a.rate),
                }
                out = {k: self.finish(k, p) for k, p in loads.items()}
                c.wait_idle(60)
                out["tiers"] = {k: v - before.get(k, 0) for k, v in self.tiers(c).items()}
            out["steps"] = list(read_steps(trace, a.rows))
        finally:
            shutil.rmtree(folder)
        return out

    def tiers(self, c):
        c.wait_idle(60)
        out = {}
        for t in c.stats()["workers"][0].get("kv_tiers", []):
            out[f"{t['tier']} up"] = t["fetched_tokens"] // PAGE
            out[f"{t['tier']} down"] = t["cleaned_pages"]
        return out


def read_steps(path, rows):
    """(period, period beyond the step's own time, scheduler's turn, store's turn, prompt tokens) of steady steps."""
    last = None
    with open(path) as f:
        for line in f:
            if '"cat":"step"' not in line:
                continue
            e = json.loads(line.strip().rstrip(","))
            a, end = e["args"], e["ts"] + e["dur"]
            if last is not None and min(a["decode"], last[1]) >= rows:
                period = end - last[0]
                yield period, period - a["us"], a["tick_us"], a["store_us"], a["prefill"]
            last = end, a["decode"]


def quantile(values, q):
    s = sorted(values)
    return s[min(len(s) - 1, int(q * len(s)))] / 1000


def row(name, runs):
    """One line of the table: all steps of these runs together."""
    steps = [s for r in runs for s in r["steps"]]
    gaps = [r["streams"]["gap_ms"]["p99"] for r in runs]
    ttft = [r[k]["ttft_ms"]["p50"] for r in runs for k in ("seldom", "often")]
    period, beyond, tick, store, prefill = zip(*steps)
    up = sum(r["tiers"].get(f"{t} up", 0) for r in runs for t in TIERS)
    down = sum(r["tiers"].get(f"{t} down", 0) for r in runs for t in TIERS)
    seconds = sum(period) / 1e6
    cells = [len(steps), *(f"{quantile(period, q):.2f}" for q in (0.5, 0.99, 0.999, 1)), f"{quantile(beyond, 0.99):.2f}",
             f"{quantile(tick, 0.99):.2f}", f"{quantile(tick, 1):.2f}", f"{quantile(store, 0.99):.2f}",
             f"{sum(gaps) / len(gaps):.2f}", f"{sum(prefill) / seconds:.0f}", f"{up / seconds:.0f}",
             f"{down / seconds:.0f}", f"{sum(ttft) / len(ttft):.1f}"]
    return f"| {name} | " + " | ".join(str(x) for x in cells) + " |"


HEAD = ("| arm | steps | period p50 ms | p99 | p99.9 | max | beyond the step p99 | tick p99 | tick max | store p99 | "
        "client's gap p99 | prompt tokens/s | pages up/s | pages down/s | warm TTFT p50 |\n|" + "---|" * 15)


def tiers_line(runs):
    total = {}
    for r in runs:
        for k, v in r["tiers"].items():
            total[k] = total.get(k, 0) + v
    return ", ".join(f"{k} {v}" for k, v in total.items() if v)


def worst(name, runs, n=5):
    """The longest periods, each with what it held: where a late step comes from."""
    steps = sorted((s for r in runs for s in r["steps"]), reverse=True)[:n]
    return f"Longest periods of {name} (period, beyond the step, tick, store in ms; prompt tokens): " + "; ".join(
        f"{p / 1000:.1f}, {b / 1000:.1f}, {t / 1000:.1f}, {s / 1000:.1f}; {n_tok}" for p, b, t, s, n_tok in steps)


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("build", help="Meson build directory")
    p.add_argument("--device", default="sim", choices=["sim", "cpu"])
    p.add_argument("--model", help="model directory; sim: deploy/demo/model; cpu: made, as w4.py does")
    p.add_argument("--cost", default="base=7000,row=20,prefill=100,kv=0,pair=0", help="device sim: --sim-cost")
    p.add_argument("--item-bytes", type=int, default=256 << 10, help="device sim: bytes of a page of 16 tokens")
    p.add_argument("--streams", type=int, default=32)
    p.add_argument("--prompt", type=int, default=32, help="tokens of a stream's prompt")
    p.add_argument("--answer", type=int, default=250, help="tokens of a stream's answer, mean")
    p.add_argument("--prefixes", type=int, default=48, help="warm prefixes that are seldom used")
    p.add_argument("--often", type=int, default=10, help="and those that are used often")
    p.add_argument("--prefix", type=int, default=1024, help="tokens of a warm prefix")
    p.add_argument("--rate", type=float, default=3, help="requests a second with each kind of prefix")
    p.add_argument("--t0", type=int, default=4, help="arm A: prefixes that T0 has room for beside the streams")
    p.add_argument("--t1", type=int, default=16, help="arm A: prefixes that T1 has room for")
    p.add_argument("--t2", type=float, default=0.5, help="arm A: share of all prefixes that T2 has room for")
    p.add_argument("--rows", type=int, default=16, help="a step counts when it and the one before decode so many rows")
    p.add_argument("--seconds", type=float, default=10, help="of each run")
    p.add_argument("--rounds", type=int, default=3, help="A B, so often")
    p.add_argument("--bound", type=float, default=1.1, help="p99 of A over p99 of B")
    p.add_argument("--threads", type=int, default=1, help="device cpu: compute threads")
    p.add_argument("--work", help="where models and tiers live for the time of the run")
    p.add_argument("--out", help="file that gets the Markdown too")
    args = p.parse_args()
    if args.device == "sim" and not args.model:
        args.model = os.path.join(HERE, "..", "deploy", "demo", "model")
    return args


def main():
    args = options()
    bench, runs, lines = Bench(args), {"A": [], "B": []}, []

    def out(text):
        lines.append(text)
        print(text, flush=True)

    try:
        out(f"# Step times beside I/O, {datetime.date.today()}\n\nMachine: {w4.machine()}. "
            f"Device {args.device}{', ' + args.cost if args.device == 'sim' else ''}, {bench.page_bytes} bytes a page; "
            f"{args.streams} streams of {bench.answer} tokens; 2 x {args.rate:g} requests/s, with one of {args.prefixes} and "
            f"of {args.often} warm prefixes of {args.prefix} tokens; {args.rounds} x {args.seconds:g} s an arm.\n\n"
            f"Command: `python3 bench/step_io.py {' '.join(sys.argv[1:])}`\n\n{HEAD}")
        for i in range(args.rounds):
            for arm in "AB":
                runs[arm].append(bench.run(arm))
                out(row(f"{arm} {i + 1}", runs[arm][-1:]))
    finally:
        shutil.rmtree(bench.work)
    p99 = {}
    for arm, name in (("A", "A, tiers thrash"), ("B", "B, no tiers")):
        out(row(f"**{name}**", runs[arm]))
        p99[arm] = quantile([s[0] for r in runs[arm] for s in r["steps"]], 0.99)
    ratio = p99["A"] / p99["B"]
    out(f"\np99 of the period: A / B = {ratio:.3f} (bound {args.bound:g}).\n\nPages in A: {tiers_line(runs['A'])}.\n")
    for arm in "AB":
        out(worst(arm, runs[arm]))
    if args.out:
        with open(args.out, "w") as f:
            f.write("\n".join(lines) + "\n")
    return 0 if ratio <= args.bound else 1


if __name__ == "__main__":
    sys.exit(main())
