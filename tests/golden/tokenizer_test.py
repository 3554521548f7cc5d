#!/usr/bin/env python3
"""The C tokenizer against Hugging Face tokenizers, id by id.

Trains one byte-level BPE per family with the family's exact pre-tokeniser, gives it added tokens of
every kind, and compares encode and decode on generated strings. PENSTOCK_FULL=1 takes 100,000 strings
a family, otherwise PENSTOCK_TOKENIZER_N or 5,000. The same seed gives the same strings.

usage: tokenizer_test.py <tok_tool> [family...]
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,  # noqa: E402
                        pre_tokenizers, processors, trainers)

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
          r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
            "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
O200K = ("|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]))

VOCAB = 4096


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def families():
    seq = pre_tokenizers.Sequence
    return {
        "gpt2": dict(pre=byte_level(use_regex=True)),
        "qwen2": dict(pre=seq([split(QWEN2), byte_level()]), norm=normalizers.NFC()),
        "llama3": dict(pre=seq([split(LLAMA3), byte_level()]), ignore_merges=True, bos=True),
        "deepseek": dict(pre=seq([split(p) for p in DEEPSEEK] + [byte_level()]),
                         norm=normalizers.Sequence([])),
        "qwen35": dict(pre=seq([split(QWEN35), byte_level()]), norm=normalizers.NFC()),
        # The slow road: patterns without a scanner, other behaviours, a prefix space, a replacement.
        "o200k": dict(pre=seq([split(O200K), byte_level()]), pcre=True),
        "mixed": dict(pre=seq([pre_tokenizers.Digits(individual_digits=True),
                               split(r"[,;]\s?", "merged_with_previous"),
                               split(r"#+", "merged_with_next"), split("-+", "contiguous"),
                               pre_tokenizers.Split("zz", "removed"),
                               byte_level(use_regex=True, prefix=True)]),
                      norm=normalizers.Sequence([normalizers.Replace("``", "\""),
                                                 normalizers.Prepend("x"), normalizers.NFC()]),
                      pcre=True),
    }


WORDS = """the of and to in is that it was for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made
over did down only way find use may water long little very after words called just where most know get through back
function return static const void struct include define import class self print while for else elif True False None
naïve café résumé Ünïcödé straße ΑΒΓ αβγ слово привет мир 你好 世界 日本語 テスト ひらがな 한국어 텍스트 हिन्दी भाषा العربية
עברית ไทย ქართული հայերեն ភាសា 𐐀𐐁 𝒜𝒷 é ö ñ""".split()
CODE = ["if (x != NULL) {\n    return foo->bar[i++];\n}\n", "def f(self, x=1):\n\treturn [i for i in x]\n",
        "#include <stdio.h>\r\n", "a = {\"k\": [1, 2.5e-3, null]};", "https://example.org/a?b=c&d=%20#e",
        "SELECT * FROM t WHERE a='b';--", "\\frac{a}{b}^2_{i}", "<div class=\"x\">&amp;</div>"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u2028",
          "\u0085", "\u000b", "\u000c", "\u180e", "\u200b", "\ufeff", "\u1680", " " * 17, "\n" * 9]
CONTR = ["'s", "'S", "'t", "'re", "'RE", "'Re", "'ve", "'m", "'ll", "'lL", "'d", "'\u017f", "'K", "\u2019s", "''s",
         "'", "'r", "'l", "'v", " 's", "'sing", "'LLama", "'dx"]
EMOJI = ["😀", "👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "❤️", "🇩🇪", "1️⃣", "🧑🏿‍🚀", "☃", "✈️"]
MARKS = ["\u0301", "\u0323", "\u0327", "\u0345", "\u0334", "\u20dd", "\u093c", "\u094d", "\u0e33", "\u0f71",
         "\u1161", "\u11a8", "\u0338", "\u302a", "\ufe0f", "\u0c3c", "\u1ac5", "\U00011930", "\U0001e4ec"]
BASES = list("aeioucnAEONnsz") + ["\u1100", "\uac00", "\u0915", "\u0f40", "\u05d0", "ö", "\u1e9b", "\u212b", "\u2126",
                                  "\ufb1d", "\U00011935", "\u0958", "\u2adc", "\U0001d15e", "\uf900", "\u3099"]
DIGITS = ["1", "12", "123", "1234", "1234567", "٣٤٥", "௧௨", "½", "Ⅷ", "²³", "１２３", "𝟙𝟚", "一二", "3.14", "1,000,000",
          "0x1F", "٤", "〇"]
PUNCT = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "——", "、", "。", "「", "・", "゠", "゛", "„", "«", "€", "→",
                                                      "≠", "```", "##", "//", "-->", "；", "\u00ad", "\u0640"]
CONTROL = ["\u0000", "\u0001", "\u001b", "\u007f", "\u009f", "\ue000", "\U000f0000", "\U0010ffff", "\ufffe",
           "\u0378", "\u200c", "\u200d", "\u202e", "\U000e0001", "\u3040", "\u3097", "\u9fa6", "\u30ff"]


def added_tokens():
    def tok(content, special, **kw):
        return AddedToken(content, special=special, normalized=kw.pop("normalized", False), **kw)
    special = [tok("<|im_start|>", True), tok("<|im_end|>", True), tok("<|endoftext|>", True),
               tok("<｜begin▁of▁sentence｜>", True), tok("<｜User｜>", True), tok("<|im|>", True),
               tok("<|l|>", True, lstrip=True), tok("<|r|>", True, rstrip=True),
               tok("<|lr|>", True, lstrip=True, rstrip=True), tok("<|norm é|>", True, normalized=True)]
    plain = [tok("<think>", False), tok("</think>", False), tok("<tool_call>", False), tok("<a>", False),
             tok("<a><b>", False), tok("<b><c>", False), tok("word", False, single_word=True),
             tok("Wörter", False, single_word=True, normalized=True), tok("\n\n\n", False, normalized=True),
             tok("    ", False, normalized=True), tok("né", False, normalized=True, lstrip=True),
             tok("  x", False), tok("é!", False)]
    return special, plain


def pieces(rng):
    k = rng.random()
    if k < 0.30:
        w = rng.choice(WORDS)
        return rng.choice([w, w.upper(), w.capitalize(), " " + w, " " + w, w + rng.choice(PUNCT)])
    if k < 0.40:
        return rng.choice(SPACES)
    if k < 0.46:
        return rng.choice(CONTR)
    if k < 0.52:
        return rng.choice(DIGITS)
    if k < 0.60:
        return rng.choice(PUNCT)
    if k < 0.64:
        return rng.choice(EMOJI)
    if k < 0.72:
        return "".join([rng.choice(BASES + MARKS)] + [rng.choice(MARKS) for _ in range(rng.randrange(4))])
    if k < 0.75:
        return rng.choice(CONTROL)
    if k < 0.83:
        special, plain = TOKENS
        t = rng.choice(special + plain).content
        return rng.choice([t, t, " " + t + " ", "\n" + t + " \n", t[:-1], t[1:], t + t, "a" + t + "b"])
    if k < 0.87:
        return rng.choice(CODE)
    if k < 0.96:
        return soup(rng)
    if k < 0.98:
        return rng.choice(["a", " ", "\n", "1", "-", "é", "漢", "\u0301", "zz", "#"]) * rng.randrange(1, 70)
    return "".join(rng.choice("abcdeilnorst") for _ in range(rng.randrange(1, 60)))


BLOCKS = [(0x0, 0x17F), (0x180, 0x52F), (0x530, 0xDFF), (0xE00, 0x17FF), (0x1800, 0x1FFF), (0x2000, 0x2BFF),
          (0x2C00, 0x30FF), (0x3100, 0xA4CF), (0xA4D0, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xFFFF),
          (0x10000, 0x11FFF), (0x12000, 0x16FFF), (0x17000, 0x1CFFF), (0x1D000, 0x1EFFF), (0x1F000, 0x1FFFF),
          (0x20000, 0x323AF), (0xE0000, 0xE01FF), (0x0, 0x10FFFF)]


def soup(rng):
    lo, hi = rng.choice(BLOCKS)
    out = []
    for _ in range(rng.randrange(1, 8)):
        c = rng.randint(lo, hi)
        if not 0xD800 <= c <= 0xDFFF:
            out.append(chr(c))
    return "".join(out)


def strings(seed, n):
    rng = random.Random(seed)
    for i in range(n):
        yield "".join(pieces(rng) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])))


def corpus():
    rng = random.Random(1)
    for _ in range(20000):
        yield " ".join(rng.choice(WORDS) for _ in range(12)) + rng.choice(PUNCT) + rng.choice(CODE)


def build(name, spec):
    tok = Tokenizer(models.BPE(ignore_merges=spec.get("ignore_merges", False)))
    tok.pre_tokenizer = spec["pre"]
    if "norm" in spec:
        tok.normalizer = spec["norm"]
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus(), trainer)
    special, plain = TOKENS
    tok.add_special_tokens(special)
    tok.add_tokens(plain)
    post = processors.ByteLevel(trim_offsets=False)
    if spec.get("bos"):
        bos = tok.token_to_id("<|endoftext|>")
        post = processors.Sequence([post, processors.TemplateProcessing(
            single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B",
            special_tokens=[("<|endoftext|>", bos)])])
    tok.post_processor = post
    model = json.loads(tok.to_str())
    if name in ("gpt2", "deepseek"):  # their published files write merges as strings
        model["model"]["merges"] = [" ".join(m) for m in model["model"]["merges"]]
    return json.dumps(model, ensure_ascii=False)


def run_tool(tool, directory, records):
    with tempfile.TemporaryFile() as src, tempfile.TemporaryFile() as dst:
        for op, flags, data in records:
            src.write(op + struct.pack("<II", flags, len(data)) + data)
        src.seek(0)
        subprocess.run([tool, directory], stdin=src, stdout=dst, check=True)
        dst.seek(0)
        out = dst.read()
    at = 0
    for op, _, _ in records:
        (n,) = struct.unpack_from("<I", out, at)
        at += 4
        if op == b"E":
            if n == 0xFFFFFFFF:
                yield None
                continue
            yield list(struct.unpack_from("<%dI" % n, out, at))
            at += 4 * n
        else:
            yield out[at:at + n]
            at += n
    assert at == len(out)


def newer_than_14():
    """Characters that tokenizers takes for assigned and Unicode 14 did not have.

    Patterns without a scanner run in PCRE2 (10.42: Unicode 14), so they are compared without these.
    """
    cps = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    assigned = set()
    pre = pre_tokenizers.Split(Regex(r"\P{Cn}"), "removed", True)
    for i in range(0, len(cps), 60000):
        for piece, _ in pre.pre_tokenize_str("".join(cps[i:i + 60000])):
            assigned.update(piece)
    # A Python that knows more than 14 cannot tell what is new: then all since 3.2 is left out.
    exact = unicodedata.unidata_version <= "14.0.0"
    data = unicodedata if exact else unicodedata.ucd_3_2_0
    return {c for c in assigned if data.category(c) == "Cn"}


def check_encode(name, tok, tool, directory, texts):
    flags = [(i & 1, i % 3 == 0) for i in range(len(texts))]
    records = [(b"E", (1 if sp else 0) | (4 if cold else 0), s.encode())
               for s, (sp, cold) in zip(texts, flags)]
    n_bad = 0
    n_ids = 0
    for s, (sp, _), got in zip(texts, flags, run_tool(tool, directory, records)):
        want = tok.encode(s, add_special_tokens=bool(sp)).ids
        n_ids += len(want)
        if got != want:
            n_bad += 1
            if n_bad <= 5:
                at = next((k for k, (a, b) in enumerate(zip(want, got or [])) if a != b), 0)
                show = [[(i, tok.id_to_token(i)) for i in (x or [])[max(at - 2, 0):at + 4]] for x in (want, got)]
                print("  %s: encode differs at id %d for %s\n    want .. %s\n    got  .. %s" % (
                    name, at, ascii(s)[:2000], *show))
    return n_bad, n_ids


def check_decode(name, tok, tool, directory, texts, seed):
    rng = random.Random(seed)
    n_vocab = tok.get_vocab_size()
    lists = []
    for i, s in enumerate(texts):
        if i % 2:
            lists.append([rng.randrange(n_vocab + 3) for _ in range(rng.randrange(30))])
        else:
            lists.append(tok.encode(s).ids)
    records = [(rng.choice([b"D", b"S"]), rng.randrange(2), struct.pack("<%dI" % len(x), *x)) for x in lists]
    n_bad = 0
    for x, (_, skip, _), got in zip(lists, records, run_tool(tool, directory, records)):
        want = tok.decode(x, skip_special_tokens=bool(skip)).encode()
        if got != want:
            n_bad += 1
            if n_bad <= 5:
                print("  %s: decode differs for %s: want %r, got %r" % (name, x, want, got))
    return n_bad


def main():
    tool = sys.argv[1]
    n = 100000 if os.environ.get("PENSTOCK_FULL") == "1" else int(os.environ.get("PENSTOCK_TOKENIZER_N", "5000"))
    failed = False
    newer = None
    assert set(sys.argv[2:]) <= set(families())
    for i, (name, spec) in enumerate(families().items()):
        if len(sys.argv) > 2 and name not in sys.argv[2:]:
            continue
        start = time.time()
        with tempfile.TemporaryDirectory() as directory:
            text = build(name, spec)
            with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
                f.write(text)
            tok = Tokenizer.from_str(text)
            texts = list(strings(1000 + i, n))
            if spec.get("pcre"):
                newer = newer or newer_than_14()
                texts = [s for s in texts if newer.isdisjoint(s)]
            bad_enc, n_ids = check_encode(name, tok, tool, directory, texts)
            bad_dec = check_decode(name, tok, tool, directory, texts, i)
        failed |= bad_enc + bad_dec > 0
        print("%-8s %d strings, %d ids: %d encode and %d decode differences, %.0f s" % (
            name, len(texts), n_ids, bad_enc, bad_dec, time.time() - start), flush=True)
    sys.exit(1 if failed else 0)


TOKENS = added_tokens()

if __name__ == "__main__":
    main()
