"""The forward pass against transformers, on tiny random models with fixed seeds. TAP on standard output.

Usage: model_test.py LOGITS_TOOL             (PENSTOCK_FULL=1: 50 prompts of 1 to 900 tokens a model, else 12)

f32: every logit within 2e-4 and 64 greedy tokens equal, with chunks of 64. bf16 and f16: errors against the
f32 pass over the same weights, and the bf16 pass bit-equal over chunk sizes, threads, instruction sets and the
ref backend.
"""

import os
import random
import struct
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
except ImportError as e:
    print(f"1..1\nnot ok 1 - {e}: build with -Dpython= the Python of tests/golden/setup_venv.sh")
    sys.exit(1)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_models  # noqa: E402

F32_ERROR_MAX = 2e-4
N_GEN = 64
FULL = os.environ.get("PENSTOCK_FULL") == "1"
EDGES = [1, 2, 15, 16, 17, 63, 64, 65, 900]  # around pages, tiles and chunks
# Of the logits' standard deviation. Roundings of weights are not errors here: the f32 reference has the same
# weights. bf16 keeps 8 bits of every activation and of K and V, f16 models round K and V alone.
HALF_ERROR_MAX = {"bf16": 0.02, "f16": 0.005}
TOP1_MIN = {"bf16": 0.95, "f16": 0.98}

n_done, n_bad = 0, 0


def report(ok, text):
    global n_done, n_bad
    n_done += 1
    n_bad += not ok
    print(f"{'ok' if ok else 'not ok'} {n_done} - {text}", flush=True)


def skip(text, why):
    global n_done
    n_done += 1
    print(f"ok {n_done} - {text} # SKIP {why}", flush=True)


def prompts(n_vocab, seed):
    rng = random.Random(seed)
    lengths = EDGES + ([255, 511, 700] if not FULL else [rng.randint(1, 900) for _ in range(41)])
    return [[rng.randrange(3, n_vocab) for _ in range(n)] for n in lengths]


def ours(tool, directory, batch, n_vocab, backend="cpu", isa="", threads="2", chunk="64"):
    """(logits, greedy tokens) of each prompt; None when this machine lacks the instruction set."""
    data = b"".join(struct.pack(f"<II{len(p)}I", len(p), N_GEN, *p) for p in batch)
    p = subprocess.run([tool, directory, backend, isa, threads, chunk], input=data, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=900)
    if p.returncode == 77:
        return None
    if p.returncode != 0:
        raise RuntimeError(p.stderr.decode())
    at, result = 0, []
    for ids in batch:
        n = len(ids) * n_vocab
        logits = torch.frombuffer(bytearray(p.stdout[at:at + 4 * n]), dtype=torch.float32).view(len(ids), n_vocab)
        at += 4 * n
        result.append((logits, list(struct.unpack_from(f"<{N_GEN}I", p.stdout, at))))
        at += 4 * N_GEN
    assert at == len(p.stdout), "the tool wrote more than it should"
    return result


def load(directory, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype,
                                                             attn_implementation="eager").eval()


def reference(model, ids, n_gen=N_GEN):
    """Logits of the prompt, and greedy tokens on the incremental path with a cache."""
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=True)
        logits, cache, gen = out.logits[0].float(), out.past_key_values, []
        last = logits[-1]
        for _ in range(n_gen):
            gen.append(int(last.argmax()))
            out = model(torch.tensor([[gen[-1]]]), past_key_values=cache, use_cache=True)
            last, cache = out.logits[0, -1], out.past_key_values
    return logits, gen


def f32_equals(tool, tmp, name, seed):
    directory = make_models.make(name, tmp)
    n_vocab = make_models.MODELS[name][2]["vocab_size"]
    model = load(directory, torch.float32)
    batch = prompts(n_vocab, seed)
    worst, unequal = 0.0, 0
    for (logits, gen), ids in zip(ours(tool, directory, batch, n_vocab), batch):
        want, want_gen = reference(model, ids)
        worst = max(worst, float((logits - want).abs().max()))
        unequal += gen != want_gen
    report(worst <= F32_ERROR_MAX and unequal == 0,
           f"{name}: {len(batch)} prompts, max abs logit error {worst:.2e}, {unequal} greedy runs of {N_GEN} differ")


def half_is_near(tool, tmp, name, kind):
    """Against the f32 pass over the same weights; beside it, what transformers' own 16-bit pass does there."""
    directory = make_models.make(name, tmp)
    n_vocab = make_models.MODELS[name][2]["vocab_size"]
    exact, theirs = load(directory, torch.float32), load(directory, make_models.MODELS[name][3])
    batch = prompts(n_vocab, 7)
    error, error_theirs, scale, agree, n = 0.0, 0.0, 0.0, 0, 0
    for (logits, _), ids in zip(ours(tool, directory, batch, n_vocab), batch):
        want, _ = reference(exact, ids, 0)
        other, _ = reference(theirs, ids, 0)
        error += float((logits - want).square().sum())
        error_theirs += float((other - want).square().sum())
        scale += float((want - want.mean()).square().sum())
        agree += int((logits.argmax(-1) == other.argmax(-1)).sum())
        n += len(ids)
    rms, rms_theirs, top1 = (error / scale) ** 0.5, (error_theirs / scale) ** 0.5, agree / n
    report(rms <= HALF_ERROR_MAX[kind] and rms <= 1.5 * rms_theirs + 0.001 and top1 >= TOP1_MIN[kind],
           f"{name}: {n} positions, rms logit error {rms:.4f} of their deviation (transformers {kind}: "
           f"{rms_theirs:.4f}), top-1 as transformers {kind} in {100 * top1:.2f} %")


def bits_are_equal(tool, tmp, name):
    directory = make_models.make(name, tmp)
    n_vocab = make_models.MODELS[name][2]["vocab_size"]
    batch = prompts(n_vocab, 99)[:9]
    want = ours(tool, directory, batch, n_vocab)
    for variant in [("cpu", "", "1", "16"), ("cpu", "", "2", "1"), ("cpu", "", "2", "512"), ("cpu", "scalar", "1", "512"),
                    ("cpu", "avx2", "2", "33"), ("cpu", "avx512", "1", "100"), ("cpu", "amx", "2", "64"),
                    ("ref", "", "1", "7")]:
        text = f"{name}: the bits of 2 threads, chunk 64 are those of {variant[0]} {variant[1] or 'best'}, " \
               f"{variant[2]} threads, chunk {variant[3]}"
        got = ours(tool, directory, batch, n_vocab, *variant)
        if got is None:
            skip(text, f"no {variant[1]} here")
            continue
        report(all(torch.equal(a[0].view(torch.int32), b[0].view(torch.int32)) and a[1] == b[1]
                   for a, b in zip(want, got)), text)


def main():
    tool = sys.argv[1]
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as tmp:
        for seed, name in enumerate(n for n, m in make_models.MODELS.items() if m[3] == torch.float32):
            f32_equals(tool, tmp, name, seed)
        half_is_near(tool, tmp, "qwen3-bf16", "bf16")
        half_is_near(tool, tmp, "qwen3-f16", "f16")
        bits_are_equal(tool, tmp, "qwen3-bf16")
        bits_are_equal(tool, tmp, "qwen3-f16")
        bits_are_equal(tool, tmp, "llama-bias")
    print(f"1..{n_done}")
    return 1 if n_bad else 0


sys.exit(main())
