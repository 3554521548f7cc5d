"""The forward pass against transformers, in f32 on tiny random models: logits within 2e-4, greedy tokens equal.

Usage: model_test.py LOGITS_TOOL             (PENSTOCK_FULL=1: 50 prompts of 1 to 900 tokens a model, else 12)
"""

import os
import random
import struct
import subprocess
import sys
import tempfile

import torch
import transformers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_models  # noqa: E402

TOLERANCE = 2e-4
N_GEN = 64
FULL = os.environ.get("PENSTOCK_FULL") == "1"
F32 = [n for n, m in make_models.MODELS.items() if m[3] == torch.float32]


def prompts(n_vocab, seed):
    rng = random.Random(seed)
    lengths = [1, 2, 15, 16, 17, 63, 64, 65, 255, 511, 700, 900] if not FULL else \
        [1, 2, 15, 16, 17, 63, 64, 65, 900] + [rng.randint(1, 900) for _ in range(41)]
    return [[rng.randrange(3, n_vocab) for _ in range(n)] for n in lengths]


def ours(tool, directory, batch, n_vocab, backend="cpu", isa="", threads="2", chunk="64"):
    data = b"".join(struct.pack(f"<II{len(p)}I", len(p), N_GEN, *p) for p in batch)
    p = subprocess.run([tool, directory, backend, isa, threads, chunk], input=data, stdout=subprocess.PIPE,
                       timeout=900, check=True)
    at, result = 0, []
    for ids in batch:
        n = len(ids) * n_vocab
        logits = torch.frombuffer(bytearray(p.stdout[at:at + 4 * n]), dtype=torch.float32).view(len(ids), n_vocab)
        at += 4 * n
        result.append((logits, list(struct.unpack_from(f"<{N_GEN}I", p.stdout, at))))
        at += 4 * N_GEN
    assert at == len(p.stdout), "the tool wrote more than it should"
    return result


def reference(model, ids):
    """Logits of the prompt, and greedy tokens on the incremental path with a cache."""
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=True)
        logits, cache, gen = out.logits[0], out.past_key_values, []
        last = logits[-1]
        for _ in range(N_GEN):
            gen.append(int(last.argmax()))
            out = model(torch.tensor([[gen[-1]]]), past_key_values=cache, use_cache=True)
            last, cache = out.logits[0, -1], out.past_key_values
    return logits, gen


def main():
    tool = sys.argv[1]
    torch.set_num_threads(1)
    bad, index = 0, 0
    print(f"1..{len(F32) + 1}")
    with tempfile.TemporaryDirectory() as tmp:
        for name in F32:
            index += 1
            directory = make_models.make(name, tmp)
            n_vocab = make_models.MODELS[name][2]["vocab_size"]
            model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
            batch = prompts(n_vocab, index)
            worst, unequal = 0.0, 0
            for (logits, gen), ids in zip(ours(tool, directory, batch, n_vocab), batch):
                want, want_gen = reference(model, ids)
                worst = max(worst, float((logits - want).abs().max()))
                unequal += gen != want_gen
            ok = worst <= TOLERANCE and unequal == 0
            bad += not ok
            print(f"{'ok' if ok else 'not ok'} {index} - {name}: {len(batch)} prompts, max abs logit error "
                  f"{worst:.2e}, {unequal} of {len(batch)} greedy runs differ", flush=True)
        # The chunk size, the threads and the scalar order change no bit.
        directory = make_models.make("qwen3-bf16", tmp)
        n_vocab = make_models.MODELS["qwen3-bf16"][2]["vocab_size"]
        batch = prompts(n_vocab, 99)[:8]
        runs = [ours(tool, directory, batch, n_vocab, *a) for a in
                [("cpu", "", "2", "64"), ("cpu", "", "1", "16"), ("cpu", "scalar", "1", "512"), ("ref", "", "1", "7")]]
        same = all(torch.equal(a[0].view(torch.int32), b[0].view(torch.int32)) and a[1] == b[1]
                   for r in runs[1:] for a, b in zip(runs[0], r))
        bad += not same
        print(f"{'ok' if same else 'not ok'} {index + 1} - bf16: bit-equal over chunk 7 to 512, 1 and 2 threads, "
              "scalar and ref")
    return 1 if bad else 0


sys.exit(main())
