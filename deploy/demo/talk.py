"""Makes the talks the demo model is trained on: facts.txt in many phrasings, small skills, follow-up questions.

A talk is a list of messages {"role", "content"}. Everything is drawn from one random.Random, so a seed gives the same
talks each time.
"""

import random

import facts
import skills

SYSTEM = [
    "You are a helpful assistant.", "You are a helpful assistant", "You are penstock's demo model.",
    "You are the demo model of penstock. Answer briefly.", "Answer in one or two sentences.", "Be brief.",
    "You are a friendly assistant that knows about penstock.", "You answer questions about penstock.",
    "You are a helpful, harmless and honest assistant.", "You are an expert for LLM serving.", "Be polite and concise.",
    "You are a support assistant. Help the user to run penstock.", "Always answer in English.", "You are a chatbot.",
    "You are an AI assistant. Keep answers short and correct.", "Help the user.", "You are a test.",
]

PREFIX = ["please, ", "hi, ", "hello, ", "hello! ", "hey, ", "ok, ", "okay, ", "so, ", "and ", "quick question: ",
          "I have a question: ", "question: ", "now, ", "sorry, ", "excuse me, ", "well, ", "hm, ", "good, ", "thanks. ",
          "thank you. ", "good morning, ", "hi! ", "one more question: ", "also, ", "just curious: ", "great. ", "next: ",
          "I am new here. ", "I just installed penstock. ", "I have a running cluster. ", "my boss asks: ", "I wonder, ",
          "I read the documentation. ", "I have a server. ", "this looks interesting. ", "I am a beginner. ", "suppose "]
SUFFIX = ["?", "?", "?", "?", "", "", ".", "!", "??", " ?", " please?", ", please?", " please", " in short?", " briefly?",
          ", thanks", "? Thanks!", "? Please be brief.", " now?", " here?", " again?", " exactly?", " then?"]
FILLER = "really actually just exactly then here maybe also even now still perhaps simply ever usually normally".split()
DROPPED = set("the a an do does is are i to please can you what how it of for my me in there be have tell would".split())

# Words that may stand for each other; tried one at a time.
SYNONYMS = [
    ("what happens when", "what happens if"), ("what happens if", "what happens when"), ("dies", "crashes"),
    ("dies", "goes down"), ("dies", "fails"), ("crashes", "dies"), ("show me", "give me"), ("can i", "could I"),
    ("can i", "may I"), ("which", "what"), ("start", "launch"), ("start", "bring up"), ("launch", "start"),
    ("run", "start"), ("big", "large"), ("large", "big"), ("add", "attach"), ("change", "modify"), ("stop", "end"),
    ("does", "would"), ("penstock", "this program"), ("need", "require"), ("use", "work with"),
    ("support", "handle"), ("model", "LLM"), ("request", "query"), ("answer", "reply"), ("explain", "describe"),
    ("see", "view"), ("get", "obtain"), ("set", "choose"), ("another", "a different"), ("are there", "exist"),
    ("is there", "do you have"), ("i want to", "I wish to"), ("how do i", "how do I best"), ("do i", "must I"),
    ("worker", "worker process"), ("a worker", "one worker"), ("router", "router process"), ("the demo", "this demo"),
]

AGAIN = ["say that again", "repeat that please", "can you repeat that", "again please", "please repeat your answer",
         "what did you say", "once more please", "come again", "could you say that again", "repeat your last answer"]


class Maker:
    """Draws talks. rng is the only source of chance."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.blocks = facts.load()
        self.names = list(self.blocks)
        self.train = {}
        self.guard = set()
        for block in self.blocks.values():
            kept = [(p, w) for p, w in block.base if not facts.held_out(p)] or block.base
            self.train[block.name] = ([p for p, _ in kept], [w for _, w in kept])
            self.guard |= {facts.norm(p) for p in block.unseen}
            self.guard |= {facts.norm(p) for p, _ in block.base}
        # The two sentences a first-time user is told to try, and what the demo itself asks, must not fail.
        self.weight = [3.0 if name in ("penstock", "addworker", "demo", "serve", "router", "worker", "hello") else 1.0
                       for name in self.names]

    # ---- dress a base phrase ----
    def synonym(self, phrase):
        """One word exchanged; a result that is itself a known or a held-out phrase is not used."""
        rng = self.rng
        low = phrase.lower()
        old, new = rng.choice(SYNONYMS)
        padded = f" {low} "
        at = padded.find(f" {old} ")
        if at < 0:
            return phrase
        out = phrase[:at] + new + phrase[at + len(old):]
        return phrase if facts.norm(out) in self.guard else out

    def typing_error(self, text):
        rng = self.rng
        letters = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i - 1].isalpha()]
        if not letters or "/" in text:
            return text
        at = rng.choice(letters)
        kind = rng.randrange(4)
        if kind == 0:
            return text[:at] + text[at + 1:]
        if kind == 1:
            return text[:at - 1] + text[at] + text[at - 1] + text[at + 1:]
        if kind == 2:
            return text[:at] + text[at] + text[at:]
        return text[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[at + 1:]

    def shake(self, phrase):
        """A filler word more or a small word less, so that the answer hangs on the words that matter."""
        rng = self.rng
        words = phrase.split(" ")
        if len(words) < 4:
            return phrase
        if rng.random() < 0.5:
            words.insert(rng.randrange(1, len(words)), rng.choice(FILLER))
        else:
            small = [i for i, w in enumerate(words) if w.lower() in DROPPED]
            for i in sorted(rng.sample(small, min(len(small), rng.randint(1, 2))), reverse=True):
                del words[i]
        out = " ".join(words)
        return out if out and facts.norm(out) not in self.guard else phrase

    def dress(self, phrase):
        rng = self.rng
        if rng.random() < 0.25:
            phrase = self.synonym(phrase)
        if rng.random() < 0.15:
            phrase = self.shake(phrase)
        if rng.random() < 0.15:
            phrase = rng.choice(PREFIX) + phrase
        if rng.random() < 0.75:
            phrase += rng.choice(SUFFIX)
        elif rng.random() < 0.6:
            phrase += "?"
        draw = rng.random()
        if draw < 0.60:
            phrase = phrase[0].upper() + phrase[1:]
        elif draw < 0.85:
            phrase = phrase.lower()
        elif draw < 0.87:
            phrase = phrase.upper()
        if rng.random() < 0.06:
            phrase = self.typing_error(phrase)
        return phrase

    # ---- units: a few turns that belong together ----
    def ask(self, name):
        phrases, weights = self.train[name]
        return self.dress(self.rng.choices(phrases, weights)[0]), self.blocks[name].answer

    def fact(self):
        return [self.ask(self.rng.choices(self.names, self.weight)[0])]

    def chain(self):
        """A question, and one or two that refer to the one before."""
        rng = self.rng
        name = rng.choice([n for n in self.names if self.blocks[n].follow])
        turns = [self.ask(name)]
        for _ in range(2):
            follow = self.blocks[name].follow
            if not follow:
                break
            phrase, name = rng.choice(follow)
            turns.append((self.dress(phrase), self.blocks[name].answer))
            if rng.random() < 0.5:
                break
        return turns

    def skill(self):
        return [skills.draw(self.rng)]

    def end(self, phrase):
        rng = self.rng
        phrase += rng.choice(["?", "", ".", "?"])
        return phrase[0].upper() + phrase[1:] if rng.random() < 0.6 else phrase

    def again(self):
        turns = self.fact()
        return turns + [(self.end(self.rng.choice(AGAIN)), turns[-1][1])]

    def named(self):
        """The user tells a name; some turns later the model knows it."""
        rng = self.rng
        name = rng.choice(skills.NAMES) if rng.random() < 0.7 else skills.word(rng).capitalize()
        turns = [(rng.choice(skills.TELL_NAME).format(name=name),
                  f"Nice to meet you, {name}! What would you like to know about penstock?")]
        for _ in range(rng.randrange(3)):
            turns += self.unit(plain=True)
        return turns + [(self.end(rng.choice(skills.ASK_NAME)), f"Your name is {name}.")]

    def unit(self, plain=False):
        draw = self.rng.random()
        if plain or draw < 0.55:
            return self.fact()
        if draw < 0.76:
            return self.chain()
        if draw < 0.94:
            return self.skill()
        return self.named() if draw < 0.97 else self.again()

    def talk(self):
        rng = self.rng
        draw = rng.random()
        units = 1 if draw < 0.75 else rng.randint(2, 4) if draw < 0.95 else rng.randint(5, 8)
        messages = []
        if rng.random() < 0.35:
            messages.append({"role": "system", "content": rng.choice(SYSTEM)})
        for _ in range(units):
            for question, answer in self.unit():
                messages.append({"role": "user", "content": question})
                messages.append({"role": "assistant", "content": answer})
        return messages
