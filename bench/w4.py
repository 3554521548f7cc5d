"""Agent sessions whose KV is larger than the device's memory: what each tier saves, on a small random model.

Usage: w4.py BUILD_DIR [options]     (w4.py --help)

Every variant does the same: run A starts all sessions, each with a long first prompt, and gives each `--turns` turns;
run B lets each go on with one more turn. Between them the cluster stays, or is killed, or another worker takes over.
T0 holds `--t0-share` of what the sessions hold at the end. Answers are compared token by token with the variant
without tiers, except in lossy formats. A variant whose options the worker does not know fails and is told.
Exit status: 0 when every variant ran, no turn failed, and answers were equal.

The short form, about a minute on two cores: --sessions 16 --first 1792 --system 256 --prefix-sessions 20
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tests", "e2e"), os.path.join(HERE, "..", "tests", "golden")]
from cluster import Cluster, free_port  # noqa: E402

VOCAB = 512
PAGE_TOKENS = 16
CONTEXT = 32768


def make_model(folder):
    """Two layers, wide heads: 2 KiB of KV a token, and cheap enough that a million tokens take a minute or two."""
    import torch
    import transformers

    import make_models
    make_models.COMMON["max_position_embeddings"] = CONTEXT
    make_models.MODELS = {"w4": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, dict(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, tie_word_embeddings=True), torch.bfloat16)}
    return make_models.make("w4", folder)


class Failed(Exception):
    pass


class Bench:
    def __init__(self, args):
        self.args, self.build = args, args.build
        self.work = tempfile.mkdtemp(prefix="penstock-w4-", dir=args.work)
        self.model = args.model or make_model(self.work)
        self.known = subprocess.run([f"{self.build}/worker/penstock-worker", "--help"], capture_output=True,
                                    text=True, check=True).stdout
        self.page_bytes = self.measure_page()
        self.baseline = {}

    def measure_page(self):
        """Bytes of a page, told by the worker: its budget over its pages."""
        budget = 64 << 20
        with self.cluster(["--kv-bytes", budget]) as c:
            c.wait(lambda: c.stats()["workers"][0]["kv_total_pages"] > 0, 10, "pages")
            return budget // c.stats()["workers"][0]["kv_total_pages"]

    def cluster(self, worker_args):
        for option in (x for x in worker_args if str(x).startswith("--")):
            if f"{option} " not in self.known and f"{option}=" not in self.known:
                raise Failed(f"this worker has no {option}")
        return Cluster(self.build, self.model, 1, threads=self.args.threads,
                       worker_args=["--max-seqs", 2 * self.args.concurrency, *worker_args])

    def agent(self, port, name, shape, *options):
        path = os.path.join(self.work, name)
        cmd = [f"{self.build}/bench/penstock-agent", "--target", f"127.0.0.1:{port}", "--vocab", VOCAB, "--seed",
               self.args.seed, "--json", f"{path}.json", "--answers", f"{path}.answers", *shape, *options]
        done = subprocess.run([str(x) for x in cmd], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{name}: {(done.stderr + done.stdout).strip().splitlines()[-1]}")
        with open(f"{path}.json") as f:
            return json.load(f)

    def equal(self, name, to):
        done = subprocess.run([f"{self.build}/bench/penstock-agent", "--compare",
                               *(os.path.join(self.work, f"{x}.answers") for x in (name, to))],
                              capture_output=True, text=True)
        return done.returncode == 0, done.stdout.strip()

    def fresh(self, *names):
        """New empty directories for one variant's tiers."""
        folder = tempfile.mkdtemp(dir=self.work)
        paths = [os.path.join(folder, n) for n in names]
        for p in paths:
            os.mkdir(p)
        return paths


class Sizes:
    """Bytes of each tier as shares of what all sessions hold at the end, in whole pages."""

    def __init__(self, bench, sessions, tokens_each):
        pages = sessions * -(-tokens_each // PAGE_TOKENS)
        self.set = pages * bench.page_bytes
        self.page = bench.page_bytes

    def of(self, share):
        return max(1, int(self.set * share) // self.page) * self.page


def variants(args, s):
    """name: (worker arguments of run A, what happens before run B, worker arguments of run B or None)"""
    t0 = ["--kv-bytes", s.of(args.t0_share)]
    whole = ["--kv-host-bytes", s.of(args.whole)]
    small = ["--kv-host-bytes", s.of(args.t1_share)]
    form = [] if args.format == "raw" else ["--kv-format", args.format]

    def t2(share):
        return ["--kv-disk", "DISK", "--kv-disk-bytes", s.of(share)]

    t3 = ["--kv-share", "SHARE", "--kv-share-bytes", s.of(args.whole)]
    return {
        "none": (t0, "stays", None),
        "T1": (t0 + whole + form, "stays", None),
        "T1+T2": (t0 + small + t2(args.whole) + form, "stays", None),
        "T1+T2+T3": (t0 + small + t2(args.t2_share) + t3 + form, "stays", None),
        "peer": (t0 + whole + ["--kv-peer-listen", "PEER"] + form, "another worker",
                 t0 + small + ["--kv-peer", "PEER"] + form),
        "kill T2": (t0 + small + t2(args.whole) + form, "kill -9", None),
        "kill T3": (t0 + small + t3 + form, "kill -9", None),
    }


def between(bench, c, what):
    if what == "kill -9":
        time.sleep(bench.args.settle)
        c.workers[0].kill()
        c.workers[0].wait()
        c.wait(lambda: c.n_live() == 0, 60, "the router to miss the worker")
        c.workers[0] = c.start_worker()
        c.wait_ready(1)


def run_variant(bench, name, plan, shape, turns):
    """Both runs of a variant; returns their results."""
    args_a, what, args_b = plan
    disk, share = bench.fresh("disk", "share")
    place = {"DISK": disk + "/kv", "SHARE": share,
             "PEER": f"127.0.0.1:{free_port()}"}
    fill = lambda words: [place.get(w, w) for w in words]  # noqa: E731
    state = os.path.join(bench.work, f"{name}.state")
    try:
        with bench.cluster(fill(args_a)) as c:
            a = bench.agent(c.port, f"{name}-a", shape, "--turns", turns, "--state", state)
            between(bench, c, what)
            if args_b is None:
                b = bench.agent(c.port, f"{name}-b", shape, "--turns", 1, "--resume", state)
            else:
                with bench.cluster(fill(args_b)) as other:
                    b = bench.agent(other.port, f"{name}-b", shape, "--turns", 1, "--resume", state)
    finally:
        shutil.rmtree(os.path.dirname(disk))
    return a, b


def row(name, phase, r, kind, equal):
    t = r[kind]
    q = t["ttft_ms"]
    return (f"| {name} | {phase} | {t['turns']} | {t['prompt_tokens']} | {t['cached_tokens']} | "
            f"{t['avoidable_tokens']} | {100 * t['avoided_share']:.2f} % | {q['p50']:.2f} | {q['p90']:.2f} | "
            f"{q['p99']:.2f} | {r['prompt_tok_s']:.0f} | {equal} |")


TABLE = ("| variant | turns | n | prompt tokens | cached | avoidable | avoided | TTFT p50 ms | p90 | p99 | "
         "prompt tokens/s | answers equal |\n|---|---|---|---|---|---|---|---|---|---|---|---|")

PREFIX_TABLE = ("| warm in | cold TTFT p50 ms | p99 | warm TTFT p50 ms | p99 | cold / warm p50 | avoided |\n"
                "|---|---|---|---|---|---|---|")


def failed_row(name, e, table):
    return f"| {name} | FAILED: {str(e).splitlines()[0]} |" + " |" * (table.splitlines()[0].count("|") - 3)


def agent_table(bench, out):
    args = bench.args
    shape = ["--sessions", args.sessions, "--system-tokens", args.system, "--first-tokens", args.first,
             "--tool-tokens", args.tool, "--answer-tokens", args.answer, "--concurrency", args.concurrency,
             "--think", args.think]
    each = args.system + args.first + (args.turns + 1) * (args.answer + args.tool)
    sizes = Sizes(bench, args.sessions, each)
    out(f"{args.sessions} sessions of {args.system}+{args.first} tokens, {args.turns}+1 turns of {args.answer} tokens "
        f"of answer and {args.tool} of tool output, {args.concurrency} at a time, think time {args.think:g} s. "
        f"Working set {sizes.set / 2**20:.0f} MiB ({bench.page_bytes} bytes a page); T0 {100 * args.t0_share:g} %, "
        f"small T1 {100 * args.t1_share:g} %, small T2 {100 * args.t2_share:g} %, a tier for all "
        f"{100 * args.whole:g} % of it; format {args.format}. Before a kill: {args.settle:g} s.\n\n{TABLE}")
    ok = True
    for name, plan in variants(args, sizes).items():
        if name not in args.variants:
            continue
        try:
            a, b = run_variant(bench, name, plan, shape, args.turns)
        except (Failed, AssertionError) as e:
            ok = False
            out(failed_row(name, e, TABLE))
            print(f"{name}: {e}", file=sys.stderr)
            continue
        words = []
        for phase in "ab":
            if name == "none" or "none" not in args.variants:
                words.append("reference" if name == "none" else "not compared")
                continue
            same, said = bench.equal(f"{name}-{phase}", f"none-{phase}")
            words.append("yes" if same else f"no: {said}")
            ok &= same or args.format != "raw"
        out(row(name, "first", a, "cold", words[0]))
        if args.turns > 1:
            out(row(name, "later", a, "warm", words[0]))
        out(row(name, {"stays": "resumed", "kill -9": "after kill -9", "another worker": "on another worker"}[plan[1]],
                b, "warm", words[1]))
    return ok


def prefix_table(bench, out):
    """One request at a time: a prefix that was never seen, then the same with two more tokens."""
    args = bench.args
    n = args.prefix_sessions
    shape = ["--sessions", n, "--system-tokens", 0, "--first-tokens", args.prefix, "--tool-tokens", 1,
             "--answer-tokens", 1, "--concurrency", 1]
    sizes = Sizes(bench, n, args.prefix + 4)
    plans = variants(args, sizes)
    plans = {"T0": (["--kv-bytes", sizes.of(1.5)], "stays", None), **{k: plans[k] for k in ("T1", "T1+T2") if k in
                                                                      args.variants}}
    out(f"\nA prefix of {args.prefix} tokens, cold and warm, {n} of them, one at a time:\n\n{PREFIX_TABLE}")
    ok = True
    for name, plan in plans.items():
        try:
            a, b = run_variant(bench, f"prefix-{name}", plan, shape, 1)
        except (Failed, AssertionError) as e:
            ok = False
            out(failed_row(name, e, PREFIX_TABLE))
            print(f"{name}: {e}", file=sys.stderr)
            continue
        cold, warm = a["cold"]["ttft_ms"], b["warm"]["ttft_ms"]
        out(f"| {name} | {cold['p50']:.2f} | {cold['p99']:.2f} | {warm['p50']:.2f} | {warm['p99']:.2f} | "
            f"{cold['p50'] / warm['p50']:.1f} | {100 * b['warm']['avoided_share']:.2f} % |")
    return ok


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = next((x.split(":")[1].strip() for x in f if x.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) >> 20
    return f"{os.cpu_count()} x {cpu}, {memory} GiB, load average {os.getloadavg()[0]:.1f} at the start"


def options():
    names = ["none", "T1", "T1+T2", "T1+T2+T3", "peer", "kill T2", "kill T3"]
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("build", help="Meson build directory")
    p.add_argument("--model", help="model directory; made when not given (needs the tests' Python)")
    p.add_argument("--variants", default=",".join(names), help=f"some of {', '.join(names)}")
    p.add_argument("--sessions", type=int, default=128)
    p.add_argument("--system", type=int, default=1024, help="tokens of the shared system prompt")
    p.add_argument("--first", type=int, default=7168, help="tokens of a session's own first prompt")
    p.add_argument("--turns", type=int, default=1, help="turns in run A")
    p.add_argument("--tool", type=int, default=128)
    p.add_argument("--answer", type=int, default=16)
    p.add_argument("--think", type=float, default=0, help="seconds, mean")
    p.add_argument("--concurrency", type=int, default=4)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="compute threads of a worker")
    p.add_argument("--t0-share", type=float, default=0.1, help="T0, of the working set")
    p.add_argument("--t1-share", type=float, default=0.1, help="T1 where it is small")
    p.add_argument("--t2-share", type=float, default=0.3, help="T2 where it is small")
    p.add_argument("--whole", type=float, default=1.3, help="a tier that shall hold everything")
    p.add_argument("--format", default="raw", choices=["raw", "fp8", "tq4"])
    p.add_argument("--settle", type=float, default=2, help="seconds between run A and kill -9")
    p.add_argument("--prefix", type=int, default=1900, help="tokens; 0: without that table")
    p.add_argument("--prefix-sessions", type=int, default=60)
    p.add_argument("--work", help="where models, tiers and answers live for the time of the run")
    p.add_argument("--out", help="file that gets the Markdown too")
    args = p.parse_args()
    args.variants = args.variants.split(",")
    for v in args.variants:
        if v not in names:
            p.error(f"no variant {v!r}; there are {', '.join(names)}")
    return args


def main():
    args = options()
    bench = Bench(args)
    lines = []

    def out(text):
        lines.append(text)
        print(text, flush=True)

    try:
        commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        out(f"# Agent sessions beyond memory, {datetime.date.today()}\n\nMachine: {machine()}. "
            f"Tree: {commit.stdout.strip() or 'unknown'}.\n\nCommand: `python3 bench/w4.py {' '.join(sys.argv[1:])}`\n")
        ok = agent_table(bench, out)
        if args.prefix > 0:
            ok &= prefix_table(bench, out)
    finally:
        shutil.rmtree(bench.work)
    if args.out:
        with open(args.out, "w") as f:
            f.write("\n".join(lines) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
