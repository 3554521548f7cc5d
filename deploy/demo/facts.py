"""Reads facts.txt and turns every block into its questions.

A base phrase is a question in lower case without end mark ("how do i add a worker"). talk.py dresses it (capitals,
"please", typing errors). One base phrase belongs to one block only: load() refuses a clash, because two answers to one
question would teach the model to mix them.
"""

import hashlib
import os
import re

IS_FORMS = """what {be} {x} | what exactly {be} {x} | explain {x} | please explain {x} | can you explain {x} |
could you explain {x} to me | tell me about {x} | please tell me about {x} | describe {x} | define {x} |
what do you mean by {x} | I want to know what {x} {be} | do you know what {x} {be} | can you tell me what {x} {be} |
tell me what {x} {be} | I don't understand {x} | what can you tell me about {x} | give me a definition of {x} |
explain to me what {x} {be} | {x} | how would you explain {x} | help me understand {x} |
I would like to learn about {x} | what should I know about {x} | what {be} {x} in penstock | what {be} meant by {x} |
I have never heard of {x} | give me a short explanation of {x} | what do people mean by {x} |
could you tell me more about {x} | what kind of thing {be} {x} | say something about {x}"""

DO_FORMS = """how do I {v} | how can I {v} | how to {v} | how would I {v} | how does one {v} | how should I {v} |
how do you {v} | how do we {v} | how could I {v} | what is the command to {v} | which command do I use to {v} |
I want to {v} | I need to {v} | I would like to {v} | I'd like to {v} | show me how to {v} | tell me how to {v} |
can you tell me how to {v} | explain how to {v} | what do I need to do to {v} | what must I do to {v} | can I {v} |
is it possible to {v} | what is the best way to {v} | is there a way to {v} | help me {v} | I don't know how to {v} |
please tell me how to {v} | what do I type to {v} | what should I type to {v} | what is needed to {v} | {v} |
which command is it to {v} | what should I do to {v} | I am trying to {v}"""

IS_FORMS = [form.strip() for form in IS_FORMS.split("|")]
DO_FORMS = [form.strip() for form in DO_FORMS.split("|")]

# Verbs or nouns in the singular that end in "s".
SINGULAR = ("ss", "kubernetes", "is", "metrics", "/health", "usage", "attention", "protocol buffers")


class Block:
    def __init__(self, name):
        self.name = name
        self.base = []        # (phrase, weight): trained on, but for the held-out part
        self.unseen = []      # phrases written by hand and never trained on
        self.answer = None
        self.follow = []      # (phrase, name of the block that answers)


def norm(phrase):
    """What makes two questions the same: letters only, lower case."""
    text = phrase.lower().replace("what's", "what is").replace("penstock.sh", "penstock_sh")
    return re.sub(r"\s+", " ", re.sub(r"[?!.,]", "", text)).strip()


def held_out(phrase):
    """One template phrase of ten is kept for --eval. Depends on the phrase alone."""
    return hashlib.sha256(norm(phrase).encode()).digest()[0] % 10 == 0


def split(rest):
    return [part.strip() for part in rest.split(" | ") if part.strip()]


def be(noun):
    last = noun.split()[-1]
    plural = last.endswith("s") and not last.endswith(SINGULAR) and not noun.startswith(("a ", "an ")) \
        and not last.startswith("/")
    return "are" if plural else "is"


def load(path=os.path.join(os.path.dirname(os.path.abspath(__file__)), "facts.txt")):
    """All blocks by name, in the order of the file."""
    blocks = {}
    block = None
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            try:
                block = read_line(blocks, block, line)
            except (KeyError, ValueError) as error:
                raise SystemExit(f"{path}:{number}: {error}")
    check(blocks)
    return blocks


def read_line(blocks, block, line):
    word, _, rest = line.partition(" ")
    if word.startswith("@"):
        if word[1:] in blocks:
            raise ValueError(f"second block {word}")
        block = blocks[word[1:]] = Block(word[1:])
    elif word == "is":
        for noun in split(rest):
            block.base += [(form.format(x=noun, be=be(noun)), 1.0) for form in IS_FORMS]
    elif word == "do":
        for verb in split(rest):
            block.base += [(form.format(v=verb), 1.0) for form in DO_FORMS]
    elif word == "ask":
        block.base += [(phrase, 5.0) for phrase in split(rest)]
    elif word == "!":
        block.unseen.append(rest.strip())
    elif word == "=":
        block.answer = rest.strip()
    elif word == "+":
        phrases, _, target = rest.rpartition(" -> ")
        block.follow += [(phrase, target.strip()) for phrase in split(phrases)]
    else:
        raise ValueError(f"cannot read {line!r}")
    return block


def check(blocks):
    owner = {}
    faults = []
    for block in blocks.values():
        if not block.answer or not block.base:
            faults.append(f"@{block.name} needs questions and an answer")
        for phrase, target in block.follow:
            if target not in blocks:
                faults.append(f"@{block.name}: no block @{target}")
        for phrase in [phrase for phrase, _ in block.base]:
            other = owner.setdefault(norm(phrase), block.name)
            if other != block.name:
                faults.append(f"{phrase!r} in @{other} and @{block.name}")
    for block in blocks.values():
        for phrase in block.unseen:
            if norm(phrase) in owner:
                faults.append(f"@{block.name}: {phrase!r} is trained on")
    if faults:
        raise SystemExit("facts.txt:\n" + "\n".join(faults))
