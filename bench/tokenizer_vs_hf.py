#!/usr/bin/env python3
"""Encode speed beside Hugging Face tokenizers, in one run on one core.

Trains a byte-level BPE of 50,000 tokens a family on this machine's licence texts and sources, then
encodes documents of 8,192 characters with both. The reference runs in one thread, by encode and by
encode_batch_fast (no offsets); the fastest of all its rounds counts, its own caches warm. Times are
processor time on both sides. Ids are compared before any time is printed.

usage: tokenizer_vs_hf.py <build directory>/bench/tokenizer_bench [family...]
"""
import glob
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "golden"))

from tokenizers import Tokenizer, pre_tokenizers, trainers  # noqa: E402

import tokenizer_test as golden  # noqa: E402

DOC = 8192
CORPUS_BYTES = 4 << 20
ROUNDS = 3


def read(paths, limit):
    out = []
    size = 0
    for p in paths:
        if size > limit:
            break
        try:
            with open(p, encoding="utf-8") as f:
                text = f.read(400000)
        except (OSError, UnicodeDecodeError):
            continue
        out.append(text)
        size += len(text)
    return "".join(out)[:limit]


def texts():
    lib = os.path.dirname(os.__file__)
    root = os.path.join(HERE, "..")
    code = sorted(glob.glob(root + "/**/*.[ch]", recursive=True)) + sorted(glob.glob(lib + "/**/*.py", recursive=True))
    english = sorted(glob.glob("/usr/share/common-licenses/*")) + sorted(
        glob.glob("/usr/share/perl/*/pod/*.pod") + glob.glob("/usr/share/doc/**/*.txt", recursive=True) +
        glob.glob("/usr/share/doc/**/copyright", recursive=True))
    rng = random.Random(7)
    english, code = read(english, CORPUS_BYTES), read(code, CORPUS_BYTES)
    mixed = []
    size = 0
    while size < CORPUS_BYTES // 2:
        at = rng.randrange(len(english) - 400)
        line = rng.choice([english[at:at + 200], code[at % (len(code) - 400):][:200],
                           " ".join(rng.choice(golden.WORDS) for _ in range(20)), "".join(
                               rng.choice("的一是在不了有和人这中大为上个国我以要他时来用们") for _ in range(60)),
                           rng.choice(golden.EMOJI) + rng.choice(golden.DIGITS)])
        mixed.append(line + rng.choice(["\n", " ", ". "]))
        size += len(line)
    return {"english": english, "code": code, "mixed": "".join(mixed)}


def build(spec, corpus):
    from tokenizers import decoders, models
    tok = Tokenizer(models.BPE(ignore_merges=spec.get("ignore_merges", False)))
    tok.pre_tokenizer = spec["pre"]
    if "norm" in spec:
        tok.normalizer = spec["norm"]
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=50000, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus, trainer)
    tok.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    return tok


def reference(tok, docs):
    best = {}
    for name, call in (("encode", lambda: [tok.encode(d, add_special_tokens=False) for d in docs]),
                       ("encode_batch_fast", lambda: tok.encode_batch_fast(docs, add_special_tokens=False))):
        for _ in range(ROUNDS):
            start = time.process_time()
            got = call()
            sec = time.process_time() - start
            best[name] = min(best.get(name, 1e9), sec)
    return best, [e.ids for e in got]


def check_ids(tool, directory, docs, ids):
    records = [(b"E", 0, d.encode()) for d in docs]
    for want, got in zip(ids, golden.run_tool(tool, directory, records)):
        if want != got:
            sys.exit("ids differ: no times")


def main():
    bench = sys.argv[1]
    tool = os.path.join(os.path.dirname(bench), "..", "tests", "golden", "tok_tool")
    corpora = texts()
    train = [t[i:i + 5000] for t in corpora.values() for i in range(0, len(t), 5000)]
    print("| family | text | bytes | ids | mode | ours MB/s | tokenizers MB/s | ratio |\n|---|---|---|---|---|---|---|---|")
    for name, spec in golden.families().items():
        if name not in (sys.argv[2:] or ["gpt2", "qwen2", "llama3", "deepseek"]):
            continue
        tok = build(spec, train)
        with tempfile.TemporaryDirectory() as d:
            tok.save(os.path.join(d, "tokenizer.json"))
            tok = Tokenizer.from_file(os.path.join(d, "tokenizer.json"))
            for kind, text in corpora.items():
                docs = [text[i:i + DOC] for i in range(0, len(text), DOC)]
                ref, ids = reference(tok, docs)
                check_ids(tool, d, docs, ids)
                with open(os.path.join(d, "docs"), "wb") as f:
                    for s in docs:
                        f.write(struct.pack("<I", len(s.encode())) + s.encode())
                out = subprocess.run([bench, d, os.path.join(d, "docs")], check=True, capture_output=True, text=True)
                for line in out.stdout.splitlines():
                    w = line.split()
                    if w[1:2] != ["bytes"]:
                        continue
                    n = int(w[2])
                    ours = n / float(w[6]) / 1e6
                    hf = n / min(ref.values()) / 1e6
                    print("| %s | %s | %d | %s | %s | %.1f | %.2f | %.1f |" % (name, kind, n, w[4], w[0], ours, hf,
                                                                              ours / hf), flush=True)
                print("<!-- %s %s: tokenizers encode %.3f s, encode_batch_fast %.3f s; %s -->" % (
                    name, kind, ref["encode"], ref["encode_batch_fast"], out.stdout.splitlines()[0]), flush=True)


if __name__ == "__main__":
    main()
