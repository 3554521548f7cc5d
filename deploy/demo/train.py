#!/usr/bin/env python3
"""Makes the demo model of penstock: text, tokenizer, training, evaluation. See README.md here.

    train.py --out model                train and save (CPU, two threads, fixed seeds)
    train.py --eval model               ask the saved model and print how many answers are right
    train.py --ask model "a question"   one greedy answer
"""

import argparse
import copy
import json
import math
import os
import random
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20240607
VOCAB = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PRETOKENIZE = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- elif message.content is iterable %}
{%- for part in message.content %}
{%- if part.type == 'text' %}
{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

MODEL = dict(
    vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, rope_theta=10000.0, rms_norm_eps=1e-6,
    tie_word_embeddings=True, attention_bias=False, initializer_range=0.04, use_sliding_window=False)

# Training. Tokens of a batch; a pool of talks is sorted by length so that little of a batch is padding.
BATCH_TOKENS = 2048
POOL_TALKS = 512
LONGEST = 1024
PEAK_RATE = 3e-3
WARM_STEPS = 60
# The weights are also saved on the way: a machine that is busy with other work may not reach the last step in time.
KEEP_STEPS = 100
# What the user says is learnt a little as well: it teaches which words go together.
USER_WEIGHT = 0.1


# ---- tokenizer ----
def train_tokenizer(out):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers import AddedToken
    import talk

    maker = talk.Maker(SEED + 1)
    texts = [m["content"] for _ in range(20000) for m in maker.talk()]
    texts += [block.answer for block in maker.blocks.values() for _ in range(20)]
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIAL), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    if tok.get_vocab_size() != VOCAB:
        raise SystemExit(f"vocabulary has {tok.get_vocab_size()} entries")
    os.makedirs(out, exist_ok=True)
    tok.save(os.path.join(out, "tokenizer.json"))
    added = {str(tok.token_to_id(name)): {"content": name, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True} for name in SPECIAL}
    write_json(out, "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": MODEL["max_position_embeddings"], "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None})
    with open(os.path.join(out, "chat_template.jinja"), "w", encoding="utf-8") as f:
        f.write(CHAT_TEMPLATE)
    return tok


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


# ---- text to batches ----
def encode(tok, messages):
    """Token ids of a talk and the weight of each as a target. Same bytes as the chat template."""
    ids, weights = [], []
    for message in messages:
        told = message["role"] == "assistant"
        head = tok.encode(f"<|im_start|>{message['role']}\n").ids
        body = tok.encode(f"{message['content']}<|im_end|>").ids
        tail = tok.encode("\n").ids
        ids += head + body + tail
        weights += [0.0] * len(head) + [1.0 if told else USER_WEIGHT] * len(body) + [0.0] * len(tail)
    return ids[:LONGEST], weights[:LONGEST]


def batches(tok, seed):
    """Endless: (ids, weights) with rows of one batch of nearly the same length, padded at the right."""
    import torch
    import talk

    maker = talk.Maker(seed)
    order = random.Random(seed + 1)
    pad = tok.token_to_id("<|endoftext|>")
    while True:
        pool = sorted((encode(tok, maker.talk()) for _ in range(POOL_TALKS)), key=lambda talk: len(talk[0]))
        groups, group = [], []
        for item in pool:
            if group and len(item[0]) * (len(group) + 1) > BATCH_TOKENS:
                groups.append(group)
                group = []
            group.append(item)
        groups.append(group)
        order.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in group])
            weights = torch.tensor([w + [0.0] * (width - len(w)) for _, w in group])
            yield ids, weights


# ---- training ----
def make_model(tok):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen3Config(**MODEL, bos_token_id=None, eos_token_id=tok.token_to_id("<|im_end|>"),
                         pad_token_id=tok.token_to_id("<|endoftext|>"), use_cache=False)
    model = Qwen3ForCausalLM(config).float()
    # Measured for these short rows on a CPU: 3,970 tokens per CPU second, the fused attention 3,200.
    model.set_attn_implementation("eager")
    return model


def make_optimizers(model):
    """Muon for the matrices of the layers, AdamW for the embedding and the norms: fewer steps than AdamW alone."""
    import torch

    inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    ids = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [torch.optim.Muon(inner, lr=PEAK_RATE, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)]


def train(out, minutes, steps, threads):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    begin = time.time()
    tok = train_tokenizer(out)
    print(f"tokenizer: {tok.get_vocab_size()} entries, {time.time() - begin:.0f} s", flush=True)
    model = make_model(tok)
    count = sum(p.numel() for p in model.parameters())
    print(f"model: {count} parameters, {2 * count / 2**20:.2f} MiB in bf16", flush=True)
    optimizers = make_optimizers(model)
    source = batches(tok, SEED + 2)
    model.train()
    begin, seen, shown = time.time(), 0, []
    for step in range(steps):
        share = min(1.0, (step + 1) / WARM_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * share
        ids, weights = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids[:, :-1]).logits
        goal, weight = ids[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
        loss = F.cross_entropy(logits.float().reshape(-1, VOCAB), goal, reduction="none")
        told = weight == 1.0
        shown.append(loss.detach()[told].mean().item())
        loss = (loss * weight).sum() / weight.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += ids.numel()
        if step % 25 == 24 or step == steps - 1:
            spent = time.time() - begin
            print(f"step {step + 1}/{steps} loss {sum(shown) / len(shown):.4f} rate {PEAK_RATE * share:.2e} "
                  f"{seen / spent:.0f} tok/s {spent / 60:.1f} min", flush=True)
            shown = []
        late = time.time() - begin > minutes * 60
        if late or step % KEEP_STEPS == KEEP_STEPS - 1 or step == steps - 1:
            save(model, tok, out)
            print(f"saved {out} at step {step + 1} of {steps}: {(time.time() - begin) / 60:.1f} minutes, {seen} tokens",
                  flush=True)
        if late:
            raise SystemExit(f"stopped after {minutes} minutes, before the last step; what was reached is saved")


def save(model, tok, out):
    import torch

    rounded = copy.deepcopy(model).to(torch.bfloat16)
    rounded.config.use_cache = True
    rounded.save_pretrained(out, safe_serialization=True)
    write_json(out, "generation_config.json", {
        "do_sample": True, "eos_token_id": [tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")],
        "pad_token_id": tok.token_to_id("<|endoftext|>"), "temperature": 0.7, "top_p": 0.9})


# ---- evaluation: the saved bf16 weights, computed in f32, greedy ----
class Answerer:
    def __init__(self, folder, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.tok = AutoTokenizer.from_pretrained(folder)
        self.tok.padding_side = "left"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).float().eval()

    def answers(self, talks, longest=256, batch=64):
        out = []
        for at in range(0, len(talks), batch):
            texts = [self.tok.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
                     for talk in talks[at:at + batch]]
            ids = self.tok(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            with self.torch.no_grad():
                made = self.model.generate(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"],
                                           do_sample=False, temperature=None, top_p=None, max_new_tokens=longest)
            out += self.tok.batch_decode(made[:, ids["input_ids"].shape[1]:], skip_special_tokens=True)
        return out


def user(text):
    return {"role": "user", "content": text}


def eval_sets():
    """name -> list of (talk, right answer). Nothing of the first two sets was ever trained on."""
    import facts
    import skills
    import talk

    blocks = facts.load()
    rng = random.Random(SEED + 3)
    hand = [([user(q)], b.answer) for b in blocks.values() for q in b.unseen]
    kept = [([user(q[0].upper() + q[1:] + "?")], b.answer) for b in blocks.values() for q, _ in b.base
            if facts.held_out(q)]
    rng.shuffle(kept)
    follow = [([user(b.base[0][0]), {"role": "assistant", "content": b.answer}, user(q[0].upper() + q[1:] + "?")],
               blocks[target].answer) for b in blocks.values() for q, target in b.follow]
    rng.shuffle(follow)
    drawn = {f"skill {skill.__name__}": [([user(q)], a) for q, a in (skills.draw(rng, skill) for _ in range(25))]
             for skill, _ in skills.SKILLS}
    maker = talk.Maker(SEED + 4)
    dressed = [([user(q)], a) for q, a in (maker.fact()[0] for _ in range(200))]
    return {"unseen questions written by hand": hand, "unseen template phrasings": kept[:400],
            "follow-up questions": follow[:200], "trained phrasings, newly dressed": dressed, **drawn}


def evaluate(folder, threads, show):
    answerer = Answerer(folder, threads)
    for name, cases in eval_sets().items():
        answers = answerer.answers([talk for talk, _ in cases])
        wrong = [(talk, right, got) for (talk, right), got in zip(cases, answers) if got.strip() != right]
        print(f"{name}: {len(cases) - len(wrong)}/{len(cases)} = {1 - len(wrong) / len(cases):.3f} answers exact")
        for talk, right, got in wrong[:show]:
            print(f"    Q {talk[-1]['content']!r}\n      got  {got}\n      want {right}")
    path = os.path.join(HERE, "expect.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            cases = json.load(f)
        answers = answerer.answers([[user(case["question"])] for case in cases])
        wrong = [(c["question"], a) for c, a in zip(cases, answers) if not all(w in a for w in c["must_contain"])]
        print(f"expect.json: {len(cases) - len(wrong)}/{len(cases)}")
        for question, answer in wrong:
            print(f"    Q {question!r}\n      got  {answer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", help="train and save into DIR")
    parser.add_argument("--eval", metavar="DIR", help="evaluate the model in DIR")
    parser.add_argument("--ask", nargs=2, metavar=("DIR", "TEXT"), help="one greedy answer")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=40, help="stop and save after (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    parser.add_argument("--show", type=int, default=5, help="wrong answers shown per set (default %(default)s)")
    args = parser.parse_args()
    if args.out:
        train(args.out, args.minutes, args.steps, args.threads)
    if args.eval:
        evaluate(args.eval, args.threads, args.show)
    if args.ask:
        print(Answerer(args.ask[0], args.threads).answers([[user(args.ask[1])]])[0])
    if not (args.out or args.eval or args.ask):
        parser.print_help()


if __name__ == "__main__":
    main()
