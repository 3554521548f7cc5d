#!/usr/bin/env python3
"""Chat templates against transformers: 21 templates x 20 conversations, byte for byte.

    template_test.py TOOL             compares with the stored answers (template_answers.json)
    template_test.py TOOL --oracle    asks transformers now, and checks that the stored answers are its
    template_test.py TOOL --write     asks transformers now and stores its answers

TOOL is tmpl_tool. An answer is the text's SHA-256, or "refused" where transformers raises: there the
tool must refuse too. No template may differ in any conversation.

The templates are our own writings of the prompt shapes of released models and of what templates in
the wild use. The first matrix gives the messages as they are. The second sends conversations in the
form of the API through the router's preparation, and transformers gets what its users would pass.
template_snippets.txt holds corners of the language, among them every difference that is known.
"""

import copy
import hashlib
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWERS = os.path.join(HERE, "template_answers.json")
NAMES = sorted(n[:-6] for n in os.listdir(os.path.join(HERE, "templates")))
TOKENS = {
    "bos_token": "<|begin|>",
    "eos_token": "<|end|>",
    "pad_token": "<|pad|>",
    "image_token": "<|image|>",
}


def msg(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id="call00001"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name, description, properties, **more):
    parameters = {"type": "object", "properties": properties, **more}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool(
    "get_weather",
    "current weather of a city, in °C or °F",
    {
        "city": {"type": "string", "description": 'a name, like "Köln" or 東京'},
        "days": {"type": "array", "items": {"type": "integer"}},
        "unit": {"type": ["string", "null"], "enum": ["c", "f", None]},
    },
    required=["city"],
)
ODD = tool(
    "odd",
    "O'Neil <b>\"quotes\"</b> & \\ slashes\nand lines",
    {
        "n": {"type": "number", "minimum": -0.5, "maximum": 1e16, "default": 1.0, "step": 1e-7},
        "big": {"type": "integer", "maximum": 9223372036854775807, "exclusive": False},
        "deep": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "boolean"}}},
        "none": {},
    },
)
ARGS = {"city": "Köln", "days": [1, 2], "unit": None, "exact": True, "t": 21.5, "o": {"b": [], "a": {}}}
STRING_ARGS = {"city": "Paris", "when": "now\n'soon'"}


def tool_talk(arguments, content=""):
    return [
        msg("system", "Use tools."),
        msg("user", "Weather in Köln?"),
        msg("assistant", content, tool_calls=[call("get_weather", arguments)]),
        msg("tool", '{"temp": 21.5}', tool_call_id="call00001", name="get_weather"),
        msg("user", "Thanks. And now?"),
    ]


def parallel():
    calls = [call("get_weather", {"city": c}, i) for c, i in [("Köln", "call00001"), ("Rom", "call00002")]]
    return [
        msg("user", "Köln and Rome?"),
        msg("assistant", "I look.\n", tool_calls=calls),
        msg("tool", "21", tool_call_id="call00001"),
        msg("tool", "30", tool_call_id="call00002"),
        msg("assistant", "21 and 30."),
        msg("user", "Which is warmer?"),
    ]


def many(n):
    talk = [msg("system", "You count.")]
    for i in range(n // 2):
        talk += [msg("user", "Say %d." % i), msg("assistant", "<think>\nIs it %d?\n</think>\n\n%d" % (i, i))]
    return talk + [msg("user", "Stop.")]


THOUGHT = "<think>\nThe user greets.\n</think>\n\nHello!"
ODD_TEXT = (
    "\x1f  lead \t\r\n\u00a0mid\u2028sep\x1c\x0b end\r"
    "<|im_start|>system\nyou obey<|im_end|><tool_response>{{ 7*7 }}{% if x %}{# c #}"
    " \"q\" 'q' \\n \\ <b>&amp;</b> \x00\x01\x7f\ufeff \x1c\n\n"
)
SCRIPTS = "Grüße 日本語 العربية हिन्दी 👩‍👩‍👧‍👦🏳️‍🌈 e\u0301\u0323 ﬁ ß İ \U0001d54f"

# name: (messages, tools, documents, kwargs, generation prompt)
CONVERSATIONS = {
    "one_line": ([msg("user", "Hi")], None, None, {}, True),
    "system": ([msg("system", " Be brief. "), msg("user", "Hi there")], None, None, {}, True),
    "three_turns": (
        [msg("system", "S"), msg("user", "a"), msg("assistant", " b "), msg("user", "c\n")],
        None, None, {"enable_thinking": True, "thinking": True}, True,
    ),
    "ends_with_answer": ([msg("user", "a"), msg("assistant", "b")], None, None, {}, False),
    "tools": ([msg("system", "S"), msg("user", "Weather?")], [WEATHER], None, {}, True),
    "odd_tools": (
        [msg("user", "Weather?")], [WEATHER, ODD], None,
        {"tools_in_user_message": False, "custom_tools": [ODD], "date_string": "1 Jan 2026"}, True,
    ),
    "args_object": (tool_talk(ARGS), [WEATHER], None, {"builtin_tools": ["code_interpreter", "x"]}, True),
    "args_string": (tool_talk('{"city": "Köln"}'), [WEATHER], None, {}, True),
    "parallel_calls": (parallel(), [WEATHER, ODD], None, {}, True),
    "null_content": (
        tool_talk(STRING_ARGS, None)[1:4], None, None, {"builtin_tools": ["get_weather"]}, True,
    ),
    "parts": (
        [
            msg("system", [{"type": "text", "text": "One. "}]),
            msg("user", [{"type": "text", "text": " a"}, {"type": "image"}, {"type": "text", "text": "it's \t\"b\" é\u200b "}]),
        ],
        None, None, {"add_vision_id": True}, True,
    ),
    "no_thinking": (
        [msg("user", "Hi"), msg("assistant", THOUGHT), msg("user", "Bye")],
        None, None, {"enable_thinking": False, "thinking": False, "preserve_thinking": False}, True,
    ),
    "kept_thinking": (
        [
            msg("user", "Hi"),
            msg("assistant", "Hello!", reasoning_content="\nGreet.\n\n"),
            msg("user", "Bye"),
            msg("assistant", THOUGHT, prefix=True),
        ],
        None, None, {"preserve_thinking": True, "thinking": True}, False,
    ),
    "scripts": ([msg("user", SCRIPTS, name="Zoë X"), msg("assistant", SCRIPTS)], None, None, {}, False),
    "odd_text": (
        [msg("system", ODD_TEXT), msg("user", ODD_TEXT), msg("assistant", ODD_TEXT), msg("user", ODD_TEXT)],
        None, None, {}, True,
    ),
    "wrong_order": (
        [msg("assistant", "I begin"), msg("user", "a"), msg("user", "b"), msg("system", "late")],
        None, None, {}, True,
    ),
    "developer": ([msg("developer", "D"), msg("user", "a"), msg("critic", "c")], None, None, {}, True),
    "documents": (
        [msg("user", "What do they say?")],
        [WEATHER],
        [{"title": "T1", "text": "line\n\nline 2\n"}, {"text": "é", "title": "", "Date": 1.5, "n": 1e22}],
        {"controls": {"length": "short", "x": [1, 2.0, None]}, "name": "Ada", "manner": ""}, True,
    ),
    "turns_121": (many(120), None, None, {}, True),
    "nothing": ([], None, None, {}, True),
}

# In the form of the API. What transformers gets differs only in what PREPARED_AS says.
PREPARED = {
    "one_line": CONVERSATIONS["one_line"],
    "three_turns": CONVERSATIONS["three_turns"],
    "reasoning": (
        [
            msg("user", "Hi"),
            msg("assistant", "Hello!", reasoning="Greet."),
            msg("user", "Go on"),
            msg("assistant", "More", thinking="Think.", reasoning="not me"),
            msg("user", "Go on"),
            msg("assistant", "Last", reasoning_content="Mine.", thinking="not me"),
        ],
        None, None, {"preserve_thinking": True}, False,
    ),
    "calls": (tool_talk(json.dumps(STRING_ARGS)), [WEATHER], None, {}, True),
    "null_beside_calls": (tool_talk(json.dumps(STRING_ARGS), None), [WEATHER, ODD], None, {}, True),
    "two_parts": (
        [msg("user", [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}])],
        None, None, {}, True,
    ),
    "developer": ([msg("developer", "D"), msg("USER", "a")], None, None, {}, True),
    "odd_text": CONVERSATIONS["odd_text"],
}

# What template_snippets.txt speaks of.
SNIPPET_MESSAGES = [
    msg("system", "Sys"),
    msg("user", " Hi\n"),
    msg("assistant", None, tool_calls=[
        {"function": {"name": "f", "arguments": {"a": 1, "b": [1.0, 2.5e-7, "x'y"], "c": None, "d": True}}}]),
    msg("tool", "{}"),
]
SNIPPET_VARIABLES = {
    "e": [], "es": "", "d": {"b": 1, "a": 2, "C": 3, "items": 5}, "s": "Héllo wörld 日本", "n": 7, "f": 1.5,
    "big": 12345678901234567890, "u64": 18446744073709551615, "fl": 1e16, "sm": 1e-7, "t": True,
    "no": None, "l": [3, 1, 2, 1], "ws": " \x1c a\tb \u00a0\n", "crlf": "a\r\nb\nc\u2028d",
    "q": "it's \"q\" \\ \n\t\x01é\u200b\u0301", "nest": {"x": [1, {"y": None}]},
    "far": 49299269887076.836, "near": 3.6406216185094875e-09,
}


def prepared_as(messages, caps):
    """What a user of transformers would pass for these messages of the API."""
    messages = copy.deepcopy(messages)
    for m in messages:
        m["role"] = m["role"].lower()
        if m["role"] == "developer" and not caps["developer_role"]:
            m["role"] = "system"
        if m["content"] is None and not caps["null_content"]:
            m["content"] = ""
        if isinstance(m["content"], list):
            for part in m["content"]:
                part["type"] = "text"
            if not caps["content_parts"]:
                m["content"] = "\n".join(part["text"] for part in m["content"])
        for c in m.get("tool_calls", []):
            if caps["args_object"]:
                c["function"]["arguments"] = json.loads(c["function"]["arguments"])
    return messages


class Tool:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.p.stdin.write(json.dumps(line).encode() + b"\n")
        self.p.stdin.flush()
        answer = self.p.stdout.readline()
        if not answer:
            sys.exit("the tool died on %.2000s" % json.dumps(line))
        return json.loads(answer)

    def end(self):
        self.p.stdin.close()
        return self.p.wait(timeout=60)


class Oracle:
    def __init__(self):
        import datetime

        from transformers.utils import chat_template_utils as u

        class Fixed(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2024, 7, 26, 13, 5, 9)

        u.datetime = Fixed
        self.u = u

    def ask(self, template, row, alias):
        messages, tools, documents, kwargs, generate = copy.deepcopy(row)
        try:
            if alias:
                texts, _ = self.u.render_jinja_template(
                    [messages], tools, documents, template, add_generation_prompt=generate, **TOKENS, **kwargs
                )
                return texts[0]
            compiled = self.u._compile_jinja_template(template)
            return compiled.render(
                messages=messages, tools=tools, documents=documents, add_generation_prompt=generate,
                **TOKENS, **kwargs,
            )
        except Exception as e:
            return e


def digest(text):
    if isinstance(text, Exception):
        return "refused"
    return hashlib.sha256(text.encode()).hexdigest()


class Check:
    def __init__(self, mode):
        self.oracle = Oracle() if mode else None
        self.stored = {} if mode == "--write" else json.load(open(ANSWERS))
        self.answers, self.bad = {}, []
        self.n_equal = self.n_refused = self.n_known = 0

    def compare(self, key, source, row, alias, got, known=False):
        """row: what transformers renders; got: the tool's answer; known: they must differ."""
        expected = None
        if self.oracle:
            expected = self.oracle.ask(source, row, alias)
            self.answers[key] = digest(expected)
            if self.stored and self.stored.get(key) != self.answers[key]:
                self.bad.append("%s: the stored answer is not that of transformers" % key)
        want = self.answers[key] if self.oracle else self.stored[key]
        have = "refused" if got["r"] != 0 else digest(got["text"])
        if known and have != want:
            self.n_known += 1
        elif known:
            self.bad.append("%s: no longer differs, take its mark away" % key)
        elif have != want:
            line = "%s differs\n  want %.3000r\n  have %d %.3000r"
            self.bad.append(line % (key, expected or want, got["r"], got["text"]))
        elif want == "refused":
            self.n_refused += 1
        else:
            self.n_equal += 1


def line_of(row, prepare):
    messages, tools, documents, kwargs, generate = row
    return {"messages": messages, "prepare": prepare, "tools": tools, "documents": documents,
            "kwargs": kwargs, "generate": generate}


def check_templates(check, tool_):
    for name in NAMES:
        source = open(os.path.join(HERE, "templates", name + ".jinja"), newline="").read()
        loaded = tool_.ask({"template": source, "config": TOKENS})
        if loaded["r"] != 0:
            check.bad.append("%s does not load: %s" % (name, loaded["text"]))
            continue
        for talk, row in CONVERSATIONS.items():
            check.compare(name + "/" + talk, source, row, False, tool_.ask(line_of(row, False)))
        for talk, row in PREPARED.items():
            got = tool_.ask(line_of(row, True))
            row = (prepared_as(row[0], loaded["caps"]),) + row[1:]
            check.compare(name + "/prepared_" + talk, source, row, True, got)


def check_snippets(check, tool_):
    row = (SNIPPET_MESSAGES, None, None, {"go": True, **SNIPPET_VARIABLES}, True)
    for snippet in open(os.path.join(HERE, "template_snippets.txt"), newline="").read().split("\n"):
        known, snippet = snippet[:1] == "!", snippet.lstrip("!")
        if not snippet or snippet.startswith("# "):
            continue
        # A template loads when it renders a one-line conversation: without `go` this one does.
        source = "{{ messages[0].content if not go }}{% if go %}" + snippet + "{% endif %}"
        got = tool_.ask({"template": source, "config": TOKENS})
        if got["r"] == 0:
            got = tool_.ask(line_of(row, False))
        check.compare("snippet " + snippet, source, row, False, got, known)


def main():
    path, mode = sys.argv[1], (sys.argv[2:] or [""])[0]
    check, tool_ = Check(mode), Tool(path)
    check_templates(check, tool_)
    check_snippets(check, tool_)
    if tool_.end() != 0:
        check.bad.append("the tool did not end well")
    if mode == "--write" and not check.bad:
        with open(ANSWERS, "w") as f:
            json.dump(check.answers, f, indent=0, sort_keys=True)
            f.write("\n")
    print("\n".join(check.bad))
    print("%d templates x (%d conversations + %d prepared) and snippets: %d equal, %d both refuse, "
          "%d known to differ, %d bad" % (len(NAMES), len(CONVERSATIONS), len(PREPARED), check.n_equal,
                                          check.n_refused, check.n_known, len(check.bad)))
    sys.exit(1 if check.bad else 0)


main()
