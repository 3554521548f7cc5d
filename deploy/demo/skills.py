"""Small skills beside the facts: numbers, counting, commands with the user's own values, repeating, "I do not know".

They show that the model reads its context: the answer holds what only the question can have told.
"""

NAMES = """Anna Ben Clara David Emma Felix Greta Henry Ida Jonas Karl Lena Max Nora Oscar Paul Rosa Sam Tom Ute Victor
Wanda Yara Zoe Maria Peter Julia Alex Chris Kim Robin Sofia Liam Noah Olivia Mia Lucas Ali Fatima Wei Yuki Ivan Olga
Pedro Carmen Ravi Priya Omar Leila Hans Ingrid Pierre Chloe Marco Giulia Bob Alice Eve Mallory Grace Ada Alan Linus
Ken Dennis Barbara Edsger Donald Margaret""".split()
TELL_NAME = ["My name is {name}.", "my name is {name}", "I am {name}.", "I'm {name}", "Hello, my name is {name}.",
             "Hi, I am {name}!", "Call me {name}.", "You can call me {name}.", "Hi! I'm {name}.", "hello, i am {name}"]
ASK_NAME = ["what is my name", "what's my name", "do you know my name", "who am I", "do you remember my name",
            "can you tell me my name", "tell me my name"]

ABOUT = """cats|dogs|horses|birds|football|tennis|music|the moon|the sun|Mars|history|physics|chemistry|biology|the sea|
mountains|cars|trains|airplanes|ships|bicycles|cooking|pizza|bread|cheese|wine|coffee|tea|chocolate|apples|bananas|love|
money|politics|religion|the weather|rain|snow|summer|winter|movies|books|poetry|painting|dancing|chess|poker|video games|
Linux kernels|JavaScript|Java|Haskell|Excel|Windows 95|blockchain|bitcoin|the stock market|taxes|insurance|doctors|sleep|
dinosaurs|volcanoes|earthquakes|the Roman empire|Napoleon|Einstein|Shakespeare|Mozart|Picasso|Cleopatra|Darwin|Newton|
the Eiffel tower|a rainbow|a prime number|the square root of two|gravity|a black hole|an atom|a democracy|a guitar""" \
    .replace("\n", "").split("|")
PLACES = """France Germany Italy Spain Japan China India Brazil Canada Mexico Egypt Kenya Norway Sweden Poland Greece Turkey
Russia Australia Chile Peru Cuba Iran Iraq Nepal Vietnam Thailand Portugal Austria Ireland Paris London Berlin Rome Tokyo
Madrid Vienna Oslo Boston Chicago Sydney Cairo Lima Delhi""".split()
OTHER = """what is the capital of {p}|what is the weather in {p}|how many people live in {p}|where is {p}|tell me about {p}|
who is the president of {p}|how do I get to {p}|tell me about {a}|what is {a}|what do you think about {a}|explain {a}|
do you like {a}|write a text about {a}|who invented {a}|how do I learn {a}|what do you know about {a}|why do people like {a}|
write a program about {a}|who is {n}|how old is {n}|what is a {w}|what is {w}|tell me about {w}|what does {w} mean|
explain {w}|who is {w}|how do I {w}|translate {a} into French|give me a recipe for {a}|how much is {a}|where can I buy {a}|
what is the meaning of life|who won the world cup|what should I eat today|what is the news|sing a song|draw a picture of {a}|
solve my homework|who will win the election|what is the best movie|can you fix my {w}|do you have a {w}|when was {n} born|
how far is {p} from {q}|what language do they speak in {p}|how many {w}s are there|is {a} good|why is the sky blue|
how deep is the sea|write a python function that sorts a list|what is the speed of light|recommend a book about {a}|
when does the train to {p} leave|book a flight to {p}|play some music|set an alarm""".replace("\n", "").split("|")
UNKNOWN = ("I do not know that. I am a very small demo model and only know about penstock. "
           "Ask me, for example: What is a worker?")

WORKERS = """how do I start {n} workers|how do I run {n} workers|start {n} workers|I want {n} workers|run it with {n} workers|
how do I start a cluster with {n} workers|how can I have {n} workers|what is the command for {n} workers|
serve with {n} workers|how do I use {n} workers|I need {n} workers|give me {n} workers|launch {n} workers|
how do I get {n} workers|which command starts {n} workers|can I run {n} workers""".replace("\n", "").split("|")
PORTS = """how do I use port {p}|start it on port {p}|listen on port {p}|I want port {p}|run the server on port {p}|
how do I listen on port {p}|serve on port {p}|can it run on port {p}|how do I run it on port {p}|use port {p}|
change the port to {p}|set the port to {p}|what is the command for port {p}|I need port {p}""".replace("\n", "").split("|")
BOTH = """how do I start {n} workers on port {p}|run {n} workers on port {p}|serve on port {p} with {n} workers|
I want {n} workers on port {p}|start {n} workers and listen on port {p}""".replace("\n", "").split("|")
DIRS = """how do I serve the model in {d}|serve {d}|load the model {d}|my model is in {d}|use the model in {d}|run {d}|
how do I run the model in {d}|start a server with {d}|I have a model in {d}, how do I serve it|the model is in {d}""" \
    .replace("\n", "").split("|")
REPEAT = ["Repeat: {x}", "Say {x}", "Repeat {x}", "Echo {x}", "Please repeat: {x}", "say: {x}", "Repeat after me: {x}",
          "Please say {x}", "Say this: {x}", "Repeat the word {x}", "Please repeat the number {x}", "Answer with {x}",
          "repeat this: {x}", "Reply with {x}", "Reply only with: {x}", "echo: {x}", "Write {x}", "Type {x}"]

SYLLABLES = "ba be bi bo da de di do fa fi fo ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe pi po ra re ri " \
            "ro sa se si so ta te ti to va ve vi vo wa we za ze zi zo flo gri bru ster plon tri dra spo".split()
COMMON = """red green blue yellow apple river stone house tree light water gate pipe fast slow one two three north south
east west summer winter cat dog bird fish paper glass iron gold silver moon star cloud rain hello world test nonce""".split()


def word(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))


def add(rng):
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    form = rng.choice(["what is {a} + {b}", "{a} + {b}", "what is {a} plus {b}", "how much is {a} + {b}", "{a}+{b}",
                       "add {a} and {b}", "calculate {a} + {b}", "how much is {a} plus {b}", "{a} plus {b}"])
    return form.format(a=a, b=b), f"{a} + {b} = {a + b}."


def subtract(rng):
    a = rng.randint(0, 20)
    b = rng.randint(0, a)
    form = rng.choice(["what is {a} - {b}", "{a} - {b}", "what is {a} minus {b}", "how much is {a} - {b}", "{a} minus {b}"])
    return form.format(a=a, b=b), f"{a} - {b} = {a - b}."


def times(rng):
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    form = rng.choice(["what is {a} times {b}", "{a} times {b}", "how much is {a} * {b}", "{a} * {b}", "what is {a} * {b}"])
    return form.format(a=a, b=b), f"{a} * {b} = {a * b}."


def count(rng):
    """To 100 now and then: a long answer that is easy to check."""
    first = 1
    last = 100 if rng.random() < 0.08 else rng.randint(3, 30)
    forms = ["count to {b}", "please count to {b}", "can you count to {b}", "count from {a} to {b}"]
    if rng.random() < 0.4:
        first = rng.randint(0, 80)
        last = first + rng.randint(2, 20)
        forms = ["count from {a} to {b}", "please count from {a} to {b}", "list the numbers from {a} to {b}"]
    return rng.choice(forms).format(a=first, b=last), ", ".join(str(i) for i in range(first, last + 1)) + "."


def workers(rng):
    n = rng.randint(1, 64)
    return rng.choice(WORKERS).format(n=n), f"Run `./penstock.sh serve --workers {n}`."


def ports(rng):
    p = rng.choice([80, 8080, 8081, 8888, 9000, 9090, 3000, 5000]) if rng.random() < 0.3 else rng.randint(1024, 65535)
    if rng.random() < 0.3:
        n = rng.randint(1, 32)
        return rng.choice(BOTH).format(n=n, p=p), f"Run `./penstock.sh serve --workers {n} --port {p}`."
    return rng.choice(PORTS).format(p=p), f"Run `./penstock.sh serve --port {p}`."


def dirs(rng):
    parts = ["models", "data", "home", "srv", "mnt", "opt", "llm", "weights", "qwen", "llama", "my-model", "Qwen3-8B",
             "checkpoints", "disk", "hf"]
    d = rng.choice(["/", "", "./", "~/"]) + "/".join(rng.choice(parts) if rng.random() < 0.7 else word(rng)
                                                      for _ in range(rng.randint(1, 3)))
    if "/" not in d:
        d = "/" + d
    return rng.choice(DIRS).format(d=d), f"Run `./penstock.sh serve --model {d}`."


def repeat(rng):
    draw = rng.random()
    if draw < 0.4:
        x = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 9)))
    elif draw < 0.6:
        x = "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 12)))
    else:
        x = " ".join(rng.choice(COMMON) if rng.random() < 0.5 else word(rng) for _ in range(rng.randint(1, 4)))
    form = rng.choice(REPEAT).format(x=x)
    return form + rng.choice([".", "", "", " "]), x


def other(rng):
    p, q = rng.sample(PLACES, 2)
    form = rng.choice(OTHER).format(p=p, q=q, a=rng.choice(ABOUT), n=rng.choice(NAMES), w=word(rng))
    return form, UNKNOWN


SKILLS = [(add, 3), (subtract, 1), (times, 1), (count, 2), (workers, 2.5), (ports, 2.5), (dirs, 1.5), (repeat, 5),
          (other, 5)]


def draw(rng, skill=None):
    """(question, answer) of one skill: the question is finished, with its end mark and capitals."""
    skill = skill or rng.choices([s for s, _ in SKILLS], [w for _, w in SKILLS])[0]
    phrase, answer = skill(rng)
    if skill is repeat:
        return phrase, answer
    phrase += rng.choice(["?", "", "", " ?"] if skill is dirs else ["?", "?", "", ".", "!"])
    return phrase[0].upper() + phrase[1:] if rng.random() < 0.6 else phrase, answer
