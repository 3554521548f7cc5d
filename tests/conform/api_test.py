"""api_test.py BUILD_DIR MODEL_DIR: the HTTP contract of the router's routes, case by case.

Real processes: a router and a worker on the demo model, spoken to over raw sockets, so that what is
checked are the bytes: framing of events over chunks, header names, what a failed request leaves of its
connection. Each case carries its number in the contract. Every wait is bounded.
"""

import codecs
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from cluster import Cluster  # noqa: E402

WAIT_S = 60
KEY = "key-of-the-test"
HI = [{"role": "user", "content": "Say hi"}]
ASK = [{"role": "user", "content": "What is a penstock?"}]
TINY = {"model": "m", "messages": HI, "max_tokens": 8, "temperature": 0}
CASES = []
W = {}  # the world: what the cases share


def case(group, number, title):
    def add(fn):
        CASES.append((group, number, title, fn))
        return fn
    return add


# ---- a client that hides nothing ----

class Answer:
    def __init__(self):
        self.status, self.reason, self.headers, self.body, self.chunks = 0, "", [], b"", []
        self.complete = False

    def get(self, name):
        return next((v for k, v in self.headers if k == name), None)

    def json(self):
        return json.loads(self.body)

    def error(self):
        return self.json()["error"]

    def events(self):
        return [json.loads(b[6:]) for b in self.body.split(b"\n\n") if b.startswith(b"data: {")]

    def text(self, index=0):
        out = ""
        for e in self.events():
            for c in e.get("choices", []):
                if c["index"] == index:
                    out += c["delta"].get("content", "") if "delta" in c else c["text"]
        return out

    def finishes(self, index=0):
        return [c["finish_reason"] for e in self.events() for c in e.get("choices", [])
                if c["index"] == index and c["finish_reason"] is not None]


class Conn:
    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, data):
        self.s.sendall(data)

    def more(self):
        part = self.s.recv(65536)
        if not part:
            raise EOFError
        self.buf += part

    def line(self):
        while b"\r\n" not in self.buf:
            self.more()
        line, self.buf = self.buf.split(b"\r\n", 1)
        return line

    def take(self, n):
        while len(self.buf) < n:
            self.more()
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def head(self):
        a = Answer()
        _, status, a.reason = self.line().decode().split(" ", 2)
        a.status = int(status)
        while line := self.line().decode("latin1"):
            k, v = line.split(": ", 1)
            a.headers.append((k, v))
        return a

    def chunk(self):
        n = int(self.line(), 16)
        data = self.take(n)
        assert self.take(2) == b"\r\n"
        return data

    def answer(self, is_head=False):
        a = self.head()
        if a.get("transfer-encoding") == "chunked":
            while data := self.chunk():
                a.chunks.append(data)
            a.body = b"".join(a.chunks)
        elif a.get("content-length") and not is_head:
            a.body = self.take(int(a.get("content-length")))
        a.complete = True
        return a


def message(method, path, body=None, headers=()):
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    h = dict(headers)
    if body is not None:
        h.setdefault("content-type", "application/json")
        h["content-length"] = str(len(data))
    lines += [f"{k}: {v}" for k, v in h.items() if v is not None]
    return "\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + data


def ask(method, path, body=None, headers=(), port=None):
    """One request; the connection must be usable afterwards unless the answer said close."""
    h = dict(headers)
    if W.get("key"):
        h.setdefault("authorization", f"Bearer {W['key']}")
    with Conn(port or W["port"]) as c:
        c.send(message(method, path, body, h))
        a = c.answer(method == "HEAD")
        if a.get("connection") != "close":
            c.send(message("GET", "/version"))
            assert c.answer().status == 200, "the connection was left unusable"
        return a


def post(path, **body):
    return ask("POST", path, body)


def chat(**body):
    return ask("POST", "/v1/chat/completions", {**TINY, **body})


def completion(**body):
    return ask("POST", "/v1/completions", {"model": "m", "temperature": 0, **body})


def good(a, status=200):
    assert a.status == status, (a.status, a.body[:500])
    return a


ROWS = {  # status, type, code
    "E1": (400, "invalid_request_error", "invalid_json"),
    "E2": (400, "invalid_request_error", "invalid_utf8"),
    "E3": (400, "invalid_request_error", "invalid_json"),
    "E4": (400, "invalid_request_error", "missing_required_parameter"),
    "E5": (400, "invalid_request_error", "invalid_type"),
    "E6": (400, "invalid_request_error", "invalid_value"),
    "E7": (400, "invalid_request_error", "conflicting_parameters"),
    "E8": (400, "invalid_request_error", "unsupported_parameter"),
    "E10": (404, "not_found_error", "model_not_found"),
    "E11": (400, "invalid_request_error", "context_length_exceeded"),
    "E12": (400, "invalid_request_error", "context_length_exceeded"),
    "E16": (415, "invalid_request_error", "unsupported_media_type"),
    "E21": (401, "authentication_error", "invalid_api_key"),
    "E23": (404, "not_found_error", "unknown_url"),
    "E24": (405, "invalid_request_error", "method_not_allowed"),
    "E25": (501, "invalid_request_error", "unsupported_endpoint"),
    "E27": (429, "overloaded_error", "queue_full"),
    "E28": (503, "overloaded_error", "queue_timeout"),
    "E31": (503, "server_error", "no_worker_available"),
    "E42": (400, "invalid_request_error", "unsupported_content"),
}


def err(a, row, param="any"):
    e = a.json()["error"]
    assert list(a.json()) == ["error"] and set(e) == {"message", "type", "param", "code"}, a.body
    assert (a.status, e["type"], e["code"]) == ROWS[row], (row, a.status, a.body)
    assert param == "any" or e["param"] == param, (param, a.body)
    return e


def bad(a, param="any"):
    assert a.status == 400 and set(a.json()["error"]) == {"message", "type", "param", "code"}, (a.status, a.body)
    assert param == "any" or a.error()["param"] == param, (param, a.body)


def sse_valid(a):
    good(a)
    assert a.get("content-type") == "text/event-stream; charset=utf-8"
    assert a.get("cache-control") == "no-cache" and a.get("x-accel-buffering") == "no"
    assert a.get("transfer-encoding") == "chunked" and a.get("content-encoding") is None
    assert b"\r" not in a.body and a.body.endswith(b"data: [DONE]\n\n")
    for c in a.chunks:
        blocks = c.split(b"\n\n")
        assert blocks[-1] == b"" or c == b"\n", ("an event is split over chunks", c)
        for b in blocks[:-1]:
            assert b.startswith(b"data: ") and len(b) > 6 and b"\n" not in b, b
            if b != b"data: [DONE]":
                json.loads(b[6:])
    assert all(k == k.lower() for k, _ in a.headers), a.headers
    return a


def stream(**body):
    return sse_valid(chat(stream=True, **body))


def content(a):
    return good(a).json()["choices"][0]["message"]["content"]


def tokens_of(text, **more):
    return good(post("/tokenize", prompt=text, **more)).json()["tokens"]


def greedy(n=32):
    """A deterministic answer of several tokens, with its ids; made once."""
    if n not in W["greedy"]:
        a = good(chat(messages=ASK, max_tokens=n, ignore_eos=True, return_token_ids=True,
                      skip_special_tokens=False)).json()
        W["greedy"][n] = (a["choices"][0]["message"]["content"], a["choices"][0]["token_ids"])
    return W["greedy"][n]


def metric(name, **labels):
    total = 0.0
    for line in good(ask("GET", "/metrics")).body.decode().splitlines():
        m = re.match(r"([\w:]+)(?:\{(.*)\})? (\S+)$", line)
        if m and m[1] == name and all(f'{k}="{v}"' in (m[2] or "") for k, v in labels.items()):
            total += float(m[3])
    return total


def wait(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for " + what
        time.sleep(0.02)


# ---- 7.1 basics ----

@case("open", "C001", "the list of models")
def _():
    a = good(ask("GET", "/v1/models")).json()
    assert a["object"] == "list" and a["data"][0]["id"] == "m" and a["data"][0]["max_model_len"] == 4096
    assert type(a["data"][0]["created"]) is int


@case("open", "C002", "one model, by name and alias, slash raw or escaped")
def _():
    one = good(ask("GET", "/v1/models/m")).json()
    assert one == good(ask("GET", "/v1/models")).json()["data"][0]
    for path in "/v1/models/org%2Fm", "/v1/models/org/m":
        assert good(ask("GET", path)).json() == one


@case("open", "C003", "an unknown model")
def _():
    err(ask("GET", "/v1/models/nope"), "E10", "model")


@case("open", "C004-C005", "aliases and untidy paths")
def _():
    want = good(ask("GET", "/v1/models")).body
    for path in "/models", "/v1//models", "/v1/models/":
        assert good(ask("GET", path)).body == want, path


@case("open", "C006", "HEAD has the length and no body")
def _():
    a = good(ask("HEAD", "/v1/models"))
    assert int(a.get("content-length")) == len(ask("GET", "/v1/models").body)


@case("keyed", "C007", "preflight without a key")
def _():
    a = good(ask("OPTIONS", "/v1/chat/completions", headers={
        "origin": "https://app.example", "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type", "authorization": None}), 204)
    assert a.get("access-control-allow-origin") == "*" and "POST" in a.get("access-control-allow-methods")
    assert a.get("access-control-allow-headers") == "authorization, content-type"
    assert a.get("access-control-max-age") == "3600"


@case("open", "C008", "wrong method")
def _():
    a = ask("GET", "/v1/chat/completions")
    err(a, "E24")
    assert a.get("allow") == "POST, OPTIONS"


@case("open", "C009", "unknown URL")
def _():
    err(post("/v1/nope"), "E23")


@case("open", "C010", "known, not implemented")
def _():
    for path in "/v1/audio/speech", "/v1/responses", "/v1/messages", "/v1/embeddings":
        a = post(path)
        err(a, "E25")
        assert a.get("x-should-retry") == "false"


@case("open", "C011", "client_version adds models")
def _():
    a = good(ask("GET", "/v1/models?client_version=0.146.0")).json()
    assert a["models"] == [] and a["data"][0]["id"] == "m"


@case("keyed", "C012", "version without a key")
def _():
    assert type(good(ask("GET", "/version", headers={"authorization": None})).json()["version"]) is str


@case("open", "C013", "request ids")
def _():
    for path in "/v1/models", "/nope", "/health":
        assert re.fullmatch("[0-9a-f]{32}", ask("GET", path).get("x-request-id"))
    a = ask("POST", "/v1/chat/completions", TINY, {"x-request-id": "abc-1"})
    assert a.get("x-request-id") == "abc-1" and a.json()["id"] == "chatcmpl-abc-1"
    a = ask("POST", "/v1/completions", {"prompt": "A", "request_id": "in-body"})
    assert a.get("x-request-id") == "in-body" and a.json()["id"] == "cmpl-in-body"


@case("open", "C014", "ids that are not echoed")
def _():
    for value in "x" * 200, "a b", "caf\xe9", "a\tb":
        assert re.fullmatch("[0-9a-f]{32}", ask("GET", "/version", headers={"x-request-id": value}).get("x-request-id"))


@case("open", "C015", "two live requests with one id")
def _():
    out, prompts = {}, [ASK, HI]

    def one(i):
        out[i] = ask("POST", "/v1/chat/completions", {**TINY, "messages": prompts[i], "max_tokens": 24},
                     {"x-request-id": "same"})
    threads = [threading.Thread(target=one, args=(i,)) for i in range(2)]
    [t.start() for t in threads]
    [t.join(WAIT_S) for t in threads]
    for i in range(2):
        assert content(out[i]) == content(chat(messages=prompts[i], max_tokens=24)), i


# ---- 7.2 chat ----

@case("open", "C016", "tiny chat")
def _():
    a = good(chat()).json()
    c, u = a["choices"][0], a["usage"]
    assert list(a) == ["id", "object", "created", "model", "choices", "usage"] and a["object"] == "chat.completion"
    assert c["message"]["role"] == "assistant" and type(c["message"]["content"]) is str
    assert c["finish_reason"] in ("stop", "length") and c["stop_reason"] is None
    assert u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"]
    assert type(u["prompt_tokens_details"]["cached_tokens"]) is int
    assert u["completion_tokens_details"] == {"reasoning_tokens": 0}


@case("open", "C017", "no model named")
def _():
    good(ask("POST", "/v1/chat/completions", {"messages": HI, "max_tokens": 4}))


@case("open", "C018", "names that resolve")
def _():
    assert good(chat(model="M")).json()["model"] == "m"
    assert good(chat(model="default")).json()["model"] == "m"
    assert good(chat(model="org/m")).json()["model"] == "org/m"


@case("open", "C019-C020", "names that do not")
def _():
    e = err(chat(model="zzz"), "E10", "model")
    assert e["message"] == "The model `zzz` does not exist."
    err(chat(model=5), "E5", "model")


@case("open", "C021-C023", "messages missing, empty, of a wrong type")
def _():
    err(ask("POST", "/v1/chat/completions", {"model": "m"}), "E4", "messages")
    bad(chat(messages=[]), "messages")
    err(chat(messages="hi"), "E5", "messages")


@case("open", "C024-C025", "roles")
def _():
    err(chat(messages=[{"role": "robot", "content": "x"}]), "E6", "messages[0].role")
    good(chat(messages=[{"role": "USER", "content": "Say hi"}]))


@case("open", "C026-C027", "text parts")
def _():
    plain = good(chat()).json()
    part = good(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}])).json()
    assert part["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    assert part["choices"][0]["message"] == plain["choices"][0]["message"]
    two = good(chat(return_token_ids=True, messages=[{"role": "user", "content": [
        {"type": "text", "text": "first part"}, {"type": "text", "text": "second part"}]}])).json()
    text = good(post("/detokenize", tokens=two["prompt_token_ids"])).json()["prompt"]
    assert re.search("first part\n?second part", text), text  # a template that takes parts joins them itself


@case("open", "C028", "a picture for a text model")
def _():
    err(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "see"},
                                                    {"type": "image_url", "image_url": {"url": "http://x/y"}}]}]),
        "E42", "messages[0].content[1].type")


@case("open", "C029-C030", "assistant and tool messages")
def _():
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    bad(chat(messages=HI + [{"role": "assistant"}] + HI))
    good(chat(messages=HI + [{"role": "assistant", "content": None, "tool_calls": [call]},
                             {"role": "tool", "tool_call_id": "call_1", "content": "4"}]))
    err(chat(messages=HI + [{"role": "tool", "content": "4"}]), "E4", "messages[1].tool_call_id")


@case("open", "C031-C033", "names, developer, unknown keys of messages")
def _():
    for m in ({"name": ""}, {"name": None}, {"cache_control": {"type": "ephemeral"}}, {"role": "developer"}):
        good(chat(messages=[{"role": "user", "content": "Say hi", **m}]))


@case("open", "C034", "unknown keys are ignored")
def _():
    before = metric("penstock_ignored_params_total")
    good(chat(foo=1))
    assert metric("penstock_ignored_params_total") == before + 1


@case("strict", "C034", "unknown keys are refused by --strict-params")
def _():
    bad(chat(foo=1), "foo")
    good(chat(store=True, user="u"))


@case("open", "C035", "null equals absent everywhere")
def _():
    names = ("temperature top_p n max_completion_tokens stop stream stream_options presence_penalty frequency_penalty "
             "logit_bias logprobs top_logprobs seed response_format tools tool_choice parallel_tool_calls functions "
             "function_call reasoning_effort modalities audio prediction metadata store service_tier verbosity "
             "moderation safety_identifier prompt_cache_retention prompt_cache_options user prompt_cache_key "
             "web_search_options").split()
    a = chat(**{**{n: None for n in names}, "temperature": 0})
    assert content(a) == content(chat())
    good(chat(temperature=None))


@case("open", "C036-C037", "temperature and top_p")
def _():
    for v in -0.1, 2.1, "0.5", True:
        bad(chat(temperature=v), "temperature")
    for v in 0, 2:
        good(chat(temperature=v))
    for v in 1.1, -1:
        bad(chat(top_p=v), "top_p")
    for v in 0, 1:
        good(chat(top_p=v))
    assert content(chat(top_p=0, temperature=1)) == content(chat())


@case("open", "C038", "n")
def _():
    for v in 0, 129, 17:
        bad(chat(n=v), "n")
    a = good(chat(n=3, temperature=1, seed=5, return_token_ids=True)).json()
    assert [c["index"] for c in a["choices"]] == [0, 1, 2]
    assert a["usage"]["completion_tokens"] == sum(len(c["token_ids"]) for c in a["choices"])
    assert a["usage"]["prompt_tokens"] == good(chat()).json()["usage"]["prompt_tokens"]
    one = good(chat(temperature=1, seed=5)).json()
    assert one["choices"][0]["message"] == a["choices"][0]["message"], "choice 0 uses the seed itself"


@case("open", "C039-C040", "limits of the answer")
def _():
    bad(chat(max_tokens=0), "max_tokens")
    bad(chat(max_tokens=16.5), "max_tokens")
    bad(chat(max_tokens="4"), "max_tokens")
    good(chat(max_tokens=-1, stop=["."]))
    good(chat(max_tokens=16.0))
    a = good(chat(max_tokens=8, max_completion_tokens=4, ignore_eos=True)).json()
    assert a["usage"]["completion_tokens"] == 4


@case("open", "C041", "forms of stop")
def _():
    for v in "\n", ["a", "b"], []:
        good(chat(stop=v))
    for v in "", [""], [1], ["x"] * 65, 5:
        bad(chat(stop=v), "stop")


def straddling(text, ids):
    """A piece of the answer that begins inside one token and ends inside a later one, and its place."""
    first = len(good(post("/detokenize", tokens=ids[:4])).json()["prompt"])
    return text[first - 1:first + 4], first - 1


@case("open", "C042-C043", "stop strings that straddle tokens")
def _():
    text, ids = greedy()
    stop, _ = straddling(text, ids)
    more = dict(messages=ASK, max_tokens=32, ignore_eos=True, skip_special_tokens=False, stop=["never there", stop])
    a = good(chat(**more)).json()
    c = a["choices"][0]
    assert c["message"]["content"] == text[:text.index(stop)] and c["finish_reason"] == "stop"
    assert c["stop_reason"] == stop
    n = a["usage"]["completion_tokens"]
    assert stop in good(post("/detokenize", tokens=ids[:n])).json()["prompt"]
    assert stop not in good(post("/detokenize", tokens=ids[:n - 1])).json()["prompt"]
    with_it = good(chat(**more, include_stop_str_in_output=True)).json()["choices"][0]
    assert with_it["message"]["content"] == text[:text.index(stop)] + stop


@case("open", "C044", "stop token ids")
def _():
    _, ids = greedy()
    at = next(i for i in range(2, len(ids)) if ids[i] not in ids[:i])
    a = good(chat(messages=ASK, max_tokens=32, ignore_eos=True, stop_token_ids=[ids[at]])).json()
    assert a["choices"][0]["stop_reason"] == ids[at] and a["choices"][0]["finish_reason"] == "stop"
    assert a["usage"]["completion_tokens"] == at + 1
    bad(chat(stop_token_ids=[10 ** 6]), "stop_token_ids")
    bad(chat(stop_token_ids=[-1]), "stop_token_ids")


@case("open", "C045-C046", "ignore_eos and min_tokens")
def _():
    a = good(chat(ignore_eos=True, max_tokens=64)).json()
    assert a["usage"]["completion_tokens"] == 64 and a["choices"][0]["finish_reason"] == "length"
    n = good(chat(min_tokens=20, max_tokens=30)).json()["usage"]["completion_tokens"]
    assert 20 <= n <= 30
    bad(chat(min_tokens=9, max_tokens=8), "min_tokens")


@case("open", "C047", "seeds")
def _():
    a, b = (content(chat(seed=7, temperature=1, max_tokens=24)) for _ in range(2))
    assert a == b
    good(chat(seed=-1, temperature=1))
    bad(chat(seed=2 ** 63), "seed")


@case("open", "C048", "a warm prefix changes nothing but cached_tokens")
def _():
    messages = [{"role": "user", "content": "Explain how the router places a request. " * 20 + str(time.time_ns())}]
    first = good(chat(messages=messages, max_tokens=16)).json()
    second = good(chat(messages=messages, max_tokens=16)).json()
    assert first["choices"][0]["message"] == second["choices"][0]["message"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    salted = good(chat(messages=messages, max_tokens=16, cache_salt="other")).json()
    assert salted["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    bad(chat(cache_salt="a/b"), "cache_salt")


@case("open", "C049", "logit_bias")
def _():
    _, ids = greedy()
    a = good(chat(messages=ASK, max_tokens=16, ignore_eos=True, return_token_ids=True,
                  logit_bias={str(ids[0]): -100})).json()
    assert ids[0] not in a["choices"][0]["token_ids"]
    bad(chat(logit_bias={"x": 1}), "logit_bias")
    bad(chat(logit_bias={"9999999": 1}), "logit_bias")
    bad(chat(logit_bias={"1": "x"}), "logit_bias")
    forced = good(chat(logit_bias={"5": 150}, max_tokens=4, ignore_eos=True, return_token_ids=True)).json()
    assert forced["choices"][0]["token_ids"] == [5] * 4


@case("open", "C050", "ranges of the other samplers")
def _():
    for name, wrong, right in (("presence_penalty", [2.5, -2.5], [2, 0]), ("frequency_penalty", [2.5], [1]),
                               ("repetition_penalty", [0, -1], [1.2]), ("top_k", [-2, 1.5], [0, -1, 5]),
                               ("min_p", [1.5, -0.1], [0, 0.5])):
        for v in wrong:
            bad(chat(**{name: v}), name)
        for v in right:
            good(chat(**{name: v}))


@case("open", "C051-C052", "log-probabilities")
def _():
    a = good(chat(logprobs=True, top_logprobs=5, max_tokens=12, return_token_ids=True)).json()
    c = a["choices"][0]
    entries = c["logprobs"]["content"]
    assert len(entries) == a["usage"]["completion_tokens"] and c["logprobs"]["refusal"] is None
    text = b"".join(bytes(e["bytes"]) for e in entries)
    if c["finish_reason"] == "stop":
        text = text[:-len(bytes(entries[-1]["bytes"]))]
    assert text.decode() == c["message"]["content"]
    for e in entries:
        top = [t["logprob"] for t in e["top_logprobs"]]
        assert len(top) == 5 and top == sorted(top, reverse=True) and -10000 < e["logprob"] <= 0
        assert top[0] == e["logprob"], "greedy takes the likeliest"
    ids = good(chat(logprobs=True, return_tokens_as_token_ids=True, return_token_ids=True)).json()["choices"][0]
    assert [e["token"] for e in ids["logprobs"]["content"]] == [f"token_id:{i}" for i in ids["token_ids"]]
    bad(chat(top_logprobs=5), "top_logprobs")
    bad(chat(logprobs=True, top_logprobs=21), "top_logprobs")
    bad(chat(logprobs=True, top_logprobs=-1), "top_logprobs")


@case("open", "C053", "token ids")
def _():
    a = good(chat(return_token_ids=True, ignore_eos=True)).json()
    c = a["choices"][0]
    assert len(a["prompt_token_ids"]) == a["usage"]["prompt_tokens"]
    assert len(c["token_ids"]) == a["usage"]["completion_tokens"]
    text = good(post("/detokenize", tokens=c["token_ids"], skip_special_tokens=True)).json()["prompt"]
    assert text == c["message"]["content"]


@case("open", "C054", "prompt_logprobs")
def _():
    a = good(chat(prompt_logprobs=1, return_token_ids=True)).json()
    lps = a["prompt_logprobs"]
    assert len(lps) == a["usage"]["prompt_tokens"] and lps[0] is None
    for i, entry in enumerate(lps[1:], 1):
        own = entry[str(a["prompt_token_ids"][i])]
        assert own["logprob"] <= 0 and own["rank"] >= 1 and len(entry) == (1 if own["rank"] == 1 else 2)
    bad(chat(prompt_logprobs=1, stream=True), "prompt_logprobs")
    bad(chat(prompt_logprobs=21), "prompt_logprobs")
    text, ids = greedy()
    stopped = good(chat(messages=ASK, prompt_logprobs=0, stop=text[:3], max_tokens=8, ignore_eos=True,
                        skip_special_tokens=False)).json()
    assert stopped["prompt_logprobs"][0] is None and len(stopped["prompt_logprobs"][1]) == 1
    assert stopped["choices"][0]["message"]["content"] == ""


@case("open", "C055", "stream_options without stream")
def _():
    bad(chat(stream_options={"include_usage": True}), "stream_options")
    bad(chat(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage")
    bad(chat(stream=1), "stream")


@case("open", "E8", "what a later version brings is refused by name")
def _():
    tool = {"type": "function", "function": {"name": "f"}}
    for name, value in (("tools", [tool]), ("functions", [{"name": "f"}]), ("guided_json", {}),
                        ("guided_regex", "a"), ("guided_choice", ["a"]), ("structured_outputs", {"choice": ["a"]}),
                        ("chat_template", "x"), ("logits_processors", ["x"]), ("use_beam_search", True),
                        ("web_search_options", {}), ("bad_words", ["x"]), ("mirostat", 2), ("lora", "x")):
        err(chat(**{name: value}), "E8", name)
    for value in {"type": "json_object"}, {"type": "json_schema"}, {}:
        bad(chat(response_format=value), "response_format")


@case("open", "C064-C066", "no tools")
def _():
    good(chat(tools=[]))
    good(chat(tool_choice="auto"))
    good(chat(tool_choice="none", response_format={"type": "text"}))
    for v in "required", "any", {"type": "function", "function": {"name": "f"}}:
        bad(chat(tool_choice=v), "tool_choice")


@case("open", "C069", "values that mean off are accepted")
def _():
    good(chat(use_beam_search=False, mirostat=0, typical_p=1.0, best_of=1, bad_words=[]))


def ids_for_context(n):
    return [5] * n


@case("open", "C072", "a prompt that does not fit")
def _():
    for n in 4096, 5000:
        e = err(completion(prompt=ids_for_context(n)), "E11", "prompt")
        assert "maximum context length is 4096 tokens" in e["message"]
    words = "word " * 6000
    e = err(chat(messages=[{"role": "user", "content": words}]), "E11", "messages")
    assert e["message"].startswith("This model's maximum context length is 4096 tokens. However, you requested 8 output "
                                   "tokens and your prompt contains ")


@case("open", "C073", "prompt and answer together do not fit")
def _():
    e = err(completion(prompt=ids_for_context(4000), max_tokens=200), "E12", "max_tokens")
    assert e["message"] == (
        "This model's maximum context length is 4096 tokens. However, you requested 200 output tokens and your prompt "
        "contains 4000 input tokens, for a total of 4200 tokens. Please reduce the length of the input prompt or the "
        "number of requested output tokens.")


@case("strict", "C073", "the same, clamped")
def _():
    a = good(completion(prompt=ids_for_context(4000), max_tokens=200, ignore_eos=True)).json()
    assert a["usage"]["completion_tokens"] == 96 and a["choices"][0]["finish_reason"] == "length"


@case("open", "C074", "what the context leaves")
def _():
    n = good(chat()).json()["usage"]["prompt_tokens"]
    a = good(ask("POST", "/v1/chat/completions", {
        "messages": HI, "temperature": 0, "ignore_eos": True, "truncate_prompt_tokens": n})).json()
    assert a["usage"]["total_tokens"] == 4096 and a["choices"][0]["finish_reason"] == "length"


@case("open", "C075", "an empty answer is an empty string")
def _():
    eos = W["eos"]
    a = good(chat(logit_bias={str(eos): 100})).json()
    assert a["choices"][0]["message"]["content"] == "" and a["choices"][0]["finish_reason"] == "stop"
    assert a["usage"]["completion_tokens"] == 1 and a["choices"][0]["stop_reason"] is None


@case("open", "C076", "continue_final_message")
def _():
    messages = HI + [{"role": "assistant", "content": "The answer is"}]
    a = good(chat(messages=messages, continue_final_message=True, return_token_ids=True)).json()
    prompt = good(post("/detokenize", tokens=a["prompt_token_ids"])).json()["prompt"]
    assert prompt.endswith("The answer is")
    bad(chat(messages=messages, continue_final_message=True, add_generation_prompt=True), "continue_final_message")


@case("open", "C077-C078", "text that is hard to carry")
def _():
    for text in "\U0001f600 \u65e5\u672c\u8a9e e\u0301", 'a\u0000b"c\\d\u2028', "\n\t":
        a = good(completion(prompt=text, echo=True, max_tokens=1)).json()
        assert a["choices"][0]["text"].startswith(text), text


# ---- 7.3 streams ----

@case("open", "C079-C080", "a stream is the same text")
def _():
    a = stream(messages=ASK, max_tokens=32)
    events = a.events()
    first = events[0]["choices"][0]
    assert first == {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    assert a.text() == content(chat(messages=ASK, max_tokens=32)) and len(a.finishes()) == 1
    assert events[-1]["choices"][0]["delta"] == {} and "stop_reason" in events[-1]["choices"][0]
    assert all(e["choices"] for e in events), "a chunk without choices that nobody asked for"
    assert all("usage" not in e for e in events)
    heads = {k for k, _ in a.headers}
    assert "x-request-id" in heads and "content-length" not in heads


@case("open", "C081-C082", "usage at the end, with [DONE] in one chunk")
def _():
    plain = good(chat(messages=ASK, max_tokens=24)).json()["usage"]
    a = stream(messages=ASK, max_tokens=24, stream_options={"include_usage": True})
    events = a.events()
    assert all(e["usage"] is None and list(e)[-1] == "usage" for e in events[:-1])
    assert events[-1]["choices"] == []
    usage = events[-1]["usage"]
    for u in plain, usage:
        u.pop("prompt_tokens_details")
    assert usage == plain
    assert b'"finish_reason":"' in a.chunks[-1] and b'"choices":[]' in a.chunks[-1]
    assert a.chunks[-1].endswith(b"data: [DONE]\n\n")


@case("open", "C083", "continuous usage")
def _():
    a = stream(messages=ASK, max_tokens=24, stream_options={"include_usage": True, "continuous_usage_stats": True})
    n = [e["usage"]["completion_tokens"] for e in a.events()]
    assert n[0] == 0 and n == sorted(n) and n[-1] == n[-2] > 0
    alone = stream(stream_options={"continuous_usage_stats": True}).events()
    assert all(e["choices"] and e["usage"] for e in alone)


@case("open", "C084-C085", "chunks of one stream belong together; n choices")
def _():
    a = stream(n=2, temperature=1, seed=3, max_tokens=12)
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in a.events()}) == 1
    for i in 0, 1:
        own = [e["choices"][0] for e in a.events() if e["choices"][0]["index"] == i]
        assert own[0]["delta"].get("role") == "assistant" and len(a.finishes(i)) == 1
        assert sum("role" in c["delta"] for c in own) == 1


@case("open", "C086", "bytes of a stream")
def _():
    a = stream(messages=ASK, max_tokens=48, logprobs=True)
    for word in b"\r", b"id:", b"event:", b"retry:", b"data: \n", b"data:\n":
        assert all(not line.startswith(word) for line in a.body.split(b"\n")), word


@case("open", "C087", "characters are never split")
def _():
    ids = tokens_of("\U0001f600")
    assert len(ids) > 1, "the tokenizer has the emoji as one token"
    bias = {str(i): 100 for i in ids}
    a = stream(logit_bias=bias, max_tokens=24, ignore_eos=True, temperature=1, seed=1, return_token_ids=True)
    got = [i for e in a.events() for i in e["choices"][0].get("token_ids", [])]
    raw = b"".join(bytes(x["bytes"]) for x in good(chat(
        logit_bias=bias, max_tokens=24, ignore_eos=True, temperature=1, seed=1, logprobs=True)).json()
        ["choices"][0]["logprobs"]["content"])
    assert len(got) == 24 and a.text() == raw.decode(errors="replace")
    a.body.decode()


@case("open", "C088", "no event shows part of a stop string")
def _():
    text, ids = greedy()
    stop, at = straddling(text, ids)
    a = stream(messages=ASK, max_tokens=32, ignore_eos=True, skip_special_tokens=False, stop=stop)
    assert a.text() == text[:text.index(stop)] and a.finishes() == ["stop"]
    seen = ""
    for e in a.events():
        seen += e["choices"][0]["delta"].get("content", "")
        assert text[:text.index(stop)].startswith(seen)


@case("open", "C094", "log-probabilities of a stream")
def _():
    a = stream(messages=ASK, max_tokens=24, logprobs=True, top_logprobs=2, stream_options={"include_usage": True})
    entries = [x for e in a.events() for c in e["choices"] if c["logprobs"] for x in c["logprobs"]["content"]]
    plain = good(chat(messages=ASK, max_tokens=24, logprobs=True, top_logprobs=2)).json()
    assert len(entries) == a.events()[-1]["usage"]["completion_tokens"]
    assert entries == plain["choices"][0]["logprobs"]["content"]


@case("open", "C096", "pings in silence, at the interval asked for")
def _():
    bad(chat(stream=True, sse_ping_interval=0), "sse_ping_interval")
    stream(sse_ping_interval=1)
    stream(sse_ping_interval=-1)


@case("open", "C097", "nothing before the first token")
def _():
    a = stream(messages=[{"role": "user", "content": "penstock " * 1500}], max_tokens=4)
    first = a.chunks[0].split(b"\n\n")
    assert b'"role"' in first[0] and len(first) > 2, "the role chunk came without a token"


def running():
    return good(ask("GET", "/v1/stats")).json()["scheduler"]["active_requests"]


def leave(how):
    before, active = metric("vllm:request_success_total", finished_reason="abort"), running()
    c = Conn(W["port"])
    c.send(message("POST", "/v1/chat/completions", {**TINY, "messages": ASK, "max_tokens": 3500, "ignore_eos": True,
                                                    "stream": True},
                   {"authorization": f"Bearer {W['key']}"} if W.get("key") else {}))
    assert c.head().status == 200
    for _ in range(3):
        c.chunk()
    how(c)
    wait(lambda: metric("vllm:request_success_total", finished_reason="abort") == before + 1, "the abort to be counted")
    wait(lambda: running() <= active, "the generation to end", 5)
    c.s.close()


@case("open", "C100-C102, C205", "a client that leaves is cancelled and counted as abort")
def _():
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    stops = metric("vllm:request_success_total", finished_reason="stop")
    leave(lambda c: c.s.close())
    leave(lambda c: c.s.shutdown(socket.SHUT_WR))
    leave(lambda c: (c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger), c.s.close()))
    assert metric("vllm:request_success_total", finished_reason="stop") == stops


@case("stall", "C103", "a client that stops reading is cut, and disturbs nobody")
def _():
    body = json.dumps({"messages": ASK, "max_tokens": 3900, "ignore_eos": True, "stream": True, "temperature": 0,
                       "logprobs": True, "top_logprobs": 20}).encode()
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", W["cluster"].port))
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                  b"content-length: %d\r\n\r\n" % len(body) + body)
        W["cluster"].wait(lambda: metric("penstock_connections") == 2, WAIT_S, "the stream")
        good(chat(max_tokens=4))
        W["cluster"].wait(lambda: metric("penstock_connections") == 1, WAIT_S, "the stalled client to be cut")
        s.settimeout(WAIT_S)
        got = b""
        try:
            while part := s.recv(1 << 16):
                got += part
        except ConnectionResetError:
            pass
        assert not got.endswith(b"0\r\n\r\n") and b"[DONE]" not in got, "the body looks complete"
    W["cluster"].wait_idle()


@case("open", "W6", "a client that reads late gets everything")
def _():
    n = 3900
    body = json.dumps({"messages": ASK, "max_tokens": n, "ignore_eos": True, "stream": True, "temperature": 0, "n": 3,
                       "logprobs": True, "top_logprobs": 20}).encode()
    done = metric("vllm:request_success_total", finished_reason="length")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", W["cluster"].port))
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                  b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        W["cluster"].wait(lambda: metric("vllm:num_requests_running") > 0, WAIT_S, "the stream to run")
        W["cluster"].wait(lambda: metric("vllm:num_requests_running") == 0, WAIT_S, "the worker to be done")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.settimeout(WAIT_S)
        got = b""
        while part := s.recv(1 << 20):
            got += part
    assert got.endswith(b"0\r\n\r\n") and got.count(b"data: [DONE]") == 1, got[-200:]
    assert got.count(b'"top_logprobs":[') == 3 * n, got.count(b'"top_logprobs":[')
    assert metric("vllm:request_success_total", finished_reason="length") > done
    return f"{len(got) >> 20} MiB"


# ---- 7.4 completions ----

@case("open", "C105-C106", "a completion")
def _():
    a = good(completion(prompt="A", ignore_eos=True)).json()
    assert a["object"] == "text_completion" and a["id"].startswith("cmpl-")
    assert list(a["choices"][0]) == ["index", "text", "logprobs", "finish_reason", "stop_reason"]
    assert a["usage"]["completion_tokens"] == 16
    assert set(a["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}


@case("open", "C107-C109", "forms of prompt")
def _():
    assert [c["index"] for c in good(completion(prompt=["A", "B"])).json()["choices"]] == [0, 1]
    assert good(completion(prompt=[1, 2, 3])).json()["usage"]["prompt_tokens"] == 3
    a = good(completion(prompt=[[1, 2], [3]])).json()
    assert len(a["choices"]) == 2 and a["usage"]["prompt_tokens"] == 3


@case("open", "C110-C111", "prompts that are refused")
def _():
    for v in ["A", 1], [1, "A"], [[1], "A"], [], [[]], "", [""], 5, {}, [1.5], [None]:
        bad(completion(prompt=v), "prompt")
    for v in [-1], [10 ** 6], [[1], [-1]]:
        bad(completion(prompt=v), "prompt")
        assert "out of vocabulary" in completion(prompt=v).error()["message"]
    err(ask("POST", "/v1/completions", {"model": "m", "messages": HI}), "E4", "prompt")


@case("open", "C112", "prompt-major order")
def _():
    a = good(completion(prompt=["The", "What"], n=2, echo=True, max_tokens=2)).json()
    assert [(c["index"], c["text"][:3]) for c in a["choices"]] == [(0, "The"), (1, "The"), (2, "Wha"), (3, "Wha")]
    bad(completion(prompt=["A"] * 1500, n=2), "n")


@case("open", "C113", "echo with log-probabilities")
def _():
    ids = tokens_of("The router places requests")
    a = good(completion(prompt=ids, echo=True, max_tokens=1, logprobs=1, ignore_eos=True)).json()["choices"][0]
    lp = a["logprobs"]
    assert list(lp) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert len(lp["tokens"]) == len(ids) + 1 and lp["token_logprobs"][0] is None and lp["top_logprobs"][0] is None
    assert a["text"] == "".join(lp["tokens"]) and a["text"].startswith("The router places requests")
    for i in range(1, len(ids) + 1):
        top = lp["top_logprobs"][i]
        assert lp["token_logprobs"][i] == top[lp["tokens"][i]] and len(top) in (1, 2)
        assert a["text"][lp["text_offset"][i]:].startswith(lp["tokens"][i])
    raw = completion(prompt=ids, echo=True, max_tokens=1, logprobs=1, ignore_eos=True).body.decode()
    numbers = re.search(r'"token_logprobs":\[([^\]]*)\]', raw)[1].split(",")[1:]
    top = raw[raw.index('"top_logprobs"'):]
    assert all(f":{n}" in top for n in numbers), "the same number is written in two ways"


@case("open", "C114", "scoring without generating")
def _():
    a = good(completion(prompt="The router", echo=True, max_tokens=0, logprobs=0)).json()
    assert a["choices"][0]["text"] == "The router" and a["usage"]["completion_tokens"] == 0
    assert a["choices"][0]["finish_reason"] == "length"
    assert len(a["choices"][0]["logprobs"]["tokens"]) == a["usage"]["prompt_tokens"]
    bad(completion(prompt="A", max_tokens=0), "max_tokens")
    s = sse_valid(completion(prompt="The router", echo=True, max_tokens=0, logprobs=0, stream=True))
    assert s.text() == "The router" and s.finishes() == ["length"]


@case("open", "C116-C118", "logprobs, best_of, suffix")
def _():
    lp = good(completion(prompt="A", logprobs=0, max_tokens=3)).json()["choices"][0]["logprobs"]
    assert all(list(t) == [tok] for t, tok in zip(lp["top_logprobs"], lp["tokens"]))
    for v in 21, -1, True:
        bad(completion(prompt="A", logprobs=v), "logprobs")
    good(completion(prompt="A", best_of=1))
    good(completion(prompt="A", best_of=2, n=2))
    bad(completion(prompt="A", best_of=1, n=2), "best_of")
    bad(completion(prompt="A", best_of=3, stream=True), "best_of")
    good(completion(prompt="A", suffix=""))
    bad(completion(prompt="A", suffix="x"), "suffix")


@case("open", "C119-C121", "streams of completions")
def _():
    more = dict(prompt=["The", "What is"], max_tokens=8, logprobs=0, ignore_eos=True)
    plain = good(completion(**more)).json()
    a = sse_valid(completion(**more, stream=True, stream_options={"include_usage": True,
                                                                  "continuous_usage_stats": True}))
    assert all(e["usage"] for e in a.events()) and a.events()[-1]["choices"] == []
    assert a.events()[-1]["usage"]["completion_tokens"] == 16 == plain["usage"]["completion_tokens"]
    for i in 0, 1:
        assert len(a.finishes(i)) == 1 and a.text(i) == plain["choices"][i]["text"]
        offsets = [o for e in a.events() for c in e["choices"] if c["index"] == i and c["logprobs"]
                   for o in c["logprobs"]["text_offset"]]
        assert offsets == plain["choices"][i]["logprobs"]["text_offset"]
    echoed = sse_valid(completion(prompt="The", echo=True, max_tokens=4, stream=True))
    assert echoed.events()[0]["choices"][0]["text"] == "The"


# ---- 7.7 tokenizer ----

@case("open", "C155-C158", "tokenize and detokenize")
def _():
    a = good(post("/tokenize", prompt="hello world")).json()
    assert a["count"] == len(a["tokens"]) and a["max_model_len"] == 4096 and a["token_strs"] is None
    assert good(post("/v1/detokenize", tokens=a["tokens"])).json()["prompt"] == "hello world"
    b = good(post("/detokenize", tokens=[a["tokens"], a["tokens"]])).json()
    assert b["prompt"] == b["text"] == b["content"] == ["hello world"] * 2
    batch = good(post("/tokenize", prompt=["hello", "world"], return_token_strs=True)).json()
    assert len(batch["tokens"]) == len(batch["count"]) == 2 and "".join(batch["token_strs"][0]) == "hello"
    same = good(chat(return_token_ids=True)).json()["prompt_token_ids"]
    assert good(post("/tokenize", messages=HI)).json()["tokens"] == same
    assert good(post("/tokenize", content="hello world")).json() == {"tokens": a["tokens"]}
    pieces = good(post("/tokenize", content="hello", with_pieces=True)).json()["tokens"]
    assert "".join(p["piece"] for p in pieces) == "hello"


@case("open", "C159", "tokenizer_info")
def _():
    a = good(ask("GET", "/tokenizer_info")).json()
    assert "<|im_start|>" in a["chat_template"] and a["eos_token"] and "tokenizer_class" in a


@case("open", "C160", "tokens that are refused")
def _():
    bad(post("/detokenize", tokens=[-1]), "tokens")
    bad(post("/detokenize", tokens=[10 ** 6]), "tokens")
    bad(post("/detokenize"), "tokens")
    bad(post("/tokenize"), "prompt")
    bad(post("/tokenize", prompt=5), "prompt")


# ---- 7.8 errors ----

def raw_chat(body, **headers):
    return ask("POST", "/v1/chat/completions", body, headers)


@case("open", "C163-C165", "bodies that are no JSON object")
def _():
    err(raw_chat(b'{"a":'), "E1")
    err(raw_chat(b""), "E1")
    err(raw_chat(b"[]"), "E3")
    err(raw_chat(b'"x"'), "E3")


@case("open", "C166", "UTF-8 is strict, lone surrogates are repaired")
def _():
    err(raw_chat(b'{"messages":[{"role":"user","content":"\xff"}]}'), "E2")
    good(raw_chat(b'{"max_tokens":2,"messages":[{"role":"user","content":"\\ud800 x"}]}'))
    good(raw_chat(codecs.BOM_UTF8 + json.dumps(TINY).encode()))


@case("open", "C167-C169", "NaN, depth, duplicate keys")
def _():
    err(raw_chat(b'{"temperature":NaN}'), "E1")
    bad(raw_chat(b'{"x":' + b"[" * 200 + b"]" * 200 + b"}"))
    a = good(raw_chat(json.dumps(TINY).encode()[:-1] + b',"max_tokens":3,"ignore_eos":true}')).json()
    assert a["usage"]["completion_tokens"] == 3


@case("open", "C170-C171", "media types")
def _():
    body = json.dumps(TINY).encode()
    for ok in "application/json; charset=utf-8", 'application/json;charset="UTF-8"', "application/x+json", None:
        good(raw_chat(body, **{"content-type": ok}))
    for wrong in "text/plain", "application/json; charset=latin1", "application/jsonx":
        err(raw_chat(body, **{"content-type": wrong}), "E16")
    a = raw_chat(body, **{"content-encoding": "gzip"})
    assert a.status == 415 and a.error()["code"] == "unsupported_content_encoding"


@case("open", "C172-C173", "bodies over the limit")
def _():
    with Conn(W["port"]) as c:
        c.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
               b"content-length: 104857600\r\nexpect: 100-continue\r\n\r\n")
        a = c.answer()
        assert a.status == 413 and a.error()["code"] == "request_too_large" and a.get("connection") == "close"


@case("keyed", "C174", "100 Continue only for who may ask")
def _():
    body = json.dumps(TINY).encode()
    head = ("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nexpect: 100-continue\r\n")
    with Conn(W["port"]) as c:
        c.send((head + f"authorization: Bearer {KEY}\r\n\r\n").encode())
        assert c.head().status == 100
        c.send(body)
        good(c.answer())
    with Conn(W["port"]) as c:
        c.send((head + "\r\n").encode())
        err(c.answer(), "E21")


@case("keyed", "C176", "keys")
def _():
    none = ask("POST", "/v1/chat/completions", TINY, {"authorization": None})
    wrong = ask("POST", "/v1/chat/completions", TINY, {"authorization": "Bearer nope"})
    err(none, "E21")
    assert none.body == wrong.body and none.get("www-authenticate") == 'Bearer realm="api"'
    for h in ({"authorization": f"bearer {KEY}"}, {"authorization": None, "x-api-key": KEY},
              {"authorization": None, "api-key": KEY}):
        good(ask("POST", "/v1/chat/completions", TINY, h))
    err(ask("POST", "/v1/chat/completions", TINY, {"authorization": f"Basic {KEY}"}), "E21")
    for path in "/v1/stats", "/tokenizer_info", "/v1/models", "/nope":
        err(ask("GET", path, headers={"authorization": None}), "E21")


@case("keyed", "C177", "a changed key file takes effect, a broken one does not")
def _():
    def status(key):
        return ask("GET", "/v1/models", headers={"authorization": f"Bearer {key}"}).status
    write_keys(KEY, "another-key")
    wait(lambda: status("another-key") == 200, "the new key", 8)
    write_keys(KEY)
    wait(lambda: status("another-key") == 401, "the old key to be refused", 8)
    assert status(KEY) == 200


@case("keyed", "C178", "paths that try to get around the key")
def _():
    for path in "/v1/../v1/models", "//v1/models", "/V1/models", "/v1/./models", "/v1/%2e%2e/v1/models":
        assert ask("GET", path, headers={"authorization": None}).status in (400, 401, 404), path


@case("open", "C188-C190", "pipelined requests, in order, after errors too")
def _():
    with Conn(W["port"]) as c:
        c.send(message("POST", "/v1/chat/completions", {**TINY, "stream": True}) + message("GET", "/version")
               + message("POST", "/v1/chat/completions", {**TINY, "n": 0}) + message("GET", "/v1/models") * 10)
        assert sse_valid(c.answer()) and "version" in good(c.answer()).json()
        assert c.answer().status == 400
        for _ in range(10):
            assert good(c.answer()).json()["object"] == "list"


@case("queue", "C194", "a full queue")
def _():
    out = []

    def one():
        out.append(chat(messages=ASK, max_tokens=600, ignore_eos=True))
    threads = [threading.Thread(target=one) for _ in range(20)]
    [t.start() for t in threads]
    [t.join(WAIT_S) for t in threads]
    full = [a for a in out if a.status == 429]
    assert len(out) == 20 and full and any(a.status == 200 for a in out), [a.status for a in out]
    for a in full:
        err(a, "E27")
        assert 1 <= int(a.get("retry-after")) <= 120 and a.reason == "Too Many Requests"


@case("late", "C195", "too long in the queue")
def _():
    out = []

    def one():
        out.append(chat(messages=ASK, max_tokens=3900, ignore_eos=True))
    threads = [threading.Thread(target=one) for _ in range(8)]
    [t.start() for t in threads]
    [t.join(WAIT_S) for t in threads]
    late = [a for a in out if a.status == 503]
    assert len(out) == 8 and late and any(a.status == 200 for a in out), [a.status for a in out]
    for a in late:
        err(a, "E28")
        assert a.get("retry-after") == "1" and a.reason == "Service Unavailable"


@case("empty", "C196, C202", "no worker")
def _():
    a = ask("POST", "/v1/chat/completions", TINY)
    err(a, "E31")
    assert a.get("retry-after") == "5"
    good(ask("GET", "/v1/models"))
    good(ask("GET", "/live"))
    assert ask("GET", "/health").status == 503
    r = ask("GET", "/ready")
    assert r.status == 503 and r.get("retry-after") == "1" and r.json()["workers"]["ready"] == 0


@case("open", "C198", "errors never carry much of what was sent")
def _():
    for a in chat(model="x" * 100000), chat(logit_bias={"k" * 100000: 1}), ask("GET", "/" + "y" * 5000):
        assert a.status >= 400 and len(a.body) < 2048 and set(a.error()) == {"message", "type", "param", "code"}


@case("open", "C200", "browsers, without keys")
def _():
    assert ask("GET", "/v1/models").get("access-control-allow-origin") is None
    assert ask("GET", "/v1/models", headers={"origin": "https://evil.example"}).get("access-control-allow-origin") is None
    a = ask("GET", "/v1/models", headers={"origin": "http://localhost:3000"})
    assert a.get("access-control-allow-origin") == "http://localhost:3000"
    with Conn(W["port"]) as c:
        c.send(b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        assert c.answer().status == 403


@case("keyed", "C200", "browsers, with keys")
def _():
    assert ask("GET", "/v1/models", headers={"origin": "https://a.example"}).get("access-control-allow-origin") == "*"


# ---- 7.9 health and metrics ----

@case("keyed", "C201", "probes need no key")
def _():
    for path in "/health", "/healthz", "/", "/ready", "/readyz", "/live", "/livez", "/ping":
        good(ask("GET", path, headers={"authorization": None}))
    good(ask("POST", "/ping", headers={"authorization": None}))
    assert good(ask("GET", "/ready")).json() == {"status": "ready", "workers": {"ready": 1, "total": 1}, "models": ["m"]}


@case("open", "C203", "metrics")
def _():
    text = good(ask("GET", "/metrics")).body.decode()
    assert ask("GET", "/metrics").get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    types = set(re.findall(r"^# TYPE (\S+) \w+$", text, re.M))
    assert types == set(re.findall(r"^# HELP (\S+) .", text, re.M))
    for name in re.findall(r"^([a-z][\w:]*)", text, re.M):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in types or base in types, name
    for name in "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc":
        assert len(re.findall(rf'^vllm:{name}\{{[^}}]*model_name="m"', text, re.M)) == 1, name
    for name in ("prefix_cache_queries_total", "prefix_cache_hits_total", "prompt_tokens_total",
                 "generation_tokens_total", "request_success_total", "time_to_first_token_seconds",
                 "inter_token_latency_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert f"vllm:{name}" in types, name


def counts():
    return {"prompt": metric("vllm:prompt_tokens_total"), "generated": metric("vllm:generation_tokens_total"),
            "stop": metric("vllm:request_success_total", finished_reason="stop"),
            "length": metric("vllm:request_success_total", finished_reason="length"),
            "ttft": metric("vllm:time_to_first_token_seconds_count"),
            "e2e": metric("vllm:e2e_request_latency_seconds_count"),
            "prompts": metric("vllm:request_prompt_tokens_sum"), "answers": metric("vllm:request_generation_tokens_sum")}


@case("open", "C204", "metrics agree exactly with the usage objects")
def _():
    before, want = counts(), dict.fromkeys(counts(), 0)
    text, _ = greedy()
    for body in ({}, {"n": 3, "temperature": 1}, {"stop": text[5:9], "messages": ASK}, {"stream": True},
                 {"stream": True, "n": 2}, {"max_tokens": 0}, {"ignore_eos": True, "logprobs": True}):
        streamed = body.get("stream")
        a = chat(**body, **({"stream_options": {"include_usage": True}} if streamed else {}))
        if a.status != 200:
            continue
        u = a.events()[-1]["usage"] if streamed else a.json()["usage"]
        n = body.get("n", 1)
        reasons = ([f for i in range(n) for f in a.finishes(i)] if streamed
                   else [c["finish_reason"] for c in a.json()["choices"]])
        for r in reasons:
            want[r] += 1
        want["prompt"] += u["prompt_tokens"]
        want["prompts"] += u["prompt_tokens"]
        want["generated"] += u["completion_tokens"]
        want["answers"] += u["completion_tokens"]
        want["ttft"] += n
        want["e2e"] += n
    after = counts()
    assert {k: after[k] - before[k] for k in want} == want


# ---- workers that die, routers that stop ----

class Running:
    """A long stream in a thread of its own."""

    def __init__(self, text, n, **more):
        self.answer, self.error = Answer(), None
        self.body = {"prompt": text, "max_tokens": n, "ignore_eos": True, "temperature": 0, **more}
        self.c = Conn(W["port"])
        self.c.send(message("POST", "/v1/completions", {**self.body, "stream": True}))
        self.answer = self.c.head()
        self.chunks = self.answer.chunks
        self.take(3)

    def take(self, n):
        for _ in range(n):
            self.chunks.append(self.c.chunk())

    def finish(self):
        while data := self.c.chunk():
            self.chunks.append(data)
        self.c.s.close()
        self.answer.body = b"".join(self.chunks)
        return self.answer


@case("two", "C098", "a stream outlives its worker")
def _():
    prompts = [f"{i} is a number and the router" for i in range(6)]
    want = [good(completion(prompt=p, max_tokens=1500, ignore_eos=True)).json()["choices"][0]["text"] for p in prompts]
    running_ones = [Running(p, 1500) for p in prompts]
    W["cluster"].workers[0].kill()
    for r, text in zip(running_ones, want):
        a = sse_valid(r.finish())
        assert a.text() == text and a.finishes() == ["length"]
    assert metric("penstock_moves_total") > 0, "no stream was on the worker that died"


@case("two", "C098-C099", "no worker left: an error in the stream, a status before it")
def _():
    r = Running("The router", 3000)
    W["cluster"].workers[1].kill()
    a = r.finish()
    assert a.body.endswith(b"data: [DONE]\n\n") and a.finishes() == []
    assert a.events()[-1]["error"]["code"] == "worker_lost"
    assert ask("POST", "/v1/completions", {"prompt": "A", "stream": True}).status in (502, 503)


@case("drain", "C208", "a router that stops finishes what runs")
def _():
    r = Running("The router", 1500)
    W["cluster"].router.terminate()
    wait(lambda: ask("GET", "/ready").status == 503, "readiness to go")
    assert ask("GET", "/ready").json()["status"] == "draining" and ask("GET", "/live").status == 200
    wait(lambda: ask("GET", "/live").get("connection") == "close", "answers that close")
    good(completion(prompt="A"))
    assert sse_valid(r.finish()).finishes() == ["length"]
    assert W["cluster"].router.wait(WAIT_S) == 0


@case("cut", "C209", "what is left when the time is up gets an error")
def _():
    r = Running("The router", 3900)
    W["cluster"].router.terminate()
    a = r.finish()
    assert a.events()[-1]["error"]["code"] == "draining" and a.body.endswith(b"data: [DONE]\n\n")
    assert W["cluster"].router.wait(WAIT_S) == 0


# ---- the worlds ----

def write_keys(*keys):
    path = W["key_file"]
    with open(path + ".new", "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write("# keys\n" + "".join(f"{k},name=test\n" for k in keys))
    os.replace(path + ".new", path)


class ApiCluster(Cluster):
    def n_live(self):
        try:
            W["port"] = self.port
            return ask("GET", "/ready").json()["workers"]["ready"]
        except OSError:
            return 0

    def wait_ready(self, n):
        self.wait(lambda: self.n_live() >= n, WAIT_S, f"{n} live workers")
        if n == 0:
            self.wait(self.answers, WAIT_S, "the router to answer")

    def answers(self):
        try:
            return ask("GET", "/live").status == 200
        except OSError:
            return False


WORLDS = {
    "open": dict(router_args=["--model-alias", "org/m"]),
    "keyed": dict(key=KEY),
    "strict": dict(router_args=["--strict-params", "--max-tokens-overflow", "clamp"]),
    "queue": dict(router_args=["--max-queue", "4"], worker_args=["--max-seqs", "1", "--max-waiting", "1"]),
    "late": dict(router_args=["--queue-timeout", "1"], worker_args=["--max-seqs", "1", "--max-waiting", "0"]),
    "stall": dict(router_args=["--write-stall", "1"]),
    "empty": dict(n_workers=0),
    "two": dict(n_workers=2, router_args=["--move-wait", "2"]),
    "drain": dict(router_args=["--drain-grace", "2"]),
    "cut": dict(router_args=["--drain-grace", "0", "--drain-timeout", "0"]),
}


def run_case(fn):
    try:
        fn()
    except Exception as e:  # every failure of a case is its own line, the others still run
        frame = e.__traceback__
        while frame.tb_next and "api_test" in frame.tb_next.tb_frame.f_code.co_filename:
            frame = frame.tb_next
        return f"line {frame.tb_lineno}: {type(e).__name__}: {str(e)[:600]}"
    return None


def main(build, model, only=None):
    cases = [c for c in CASES if only is None or only in c[1] or only == c[0]]
    print(f"1..{len(cases)}", flush=True)
    number = n_bad = 0
    with open(os.path.join(model, "config.json")) as f:
        eos = json.load(f)["eos_token_id"]
    for world, args in WORLDS.items():
        mine = [c for c in cases if c[0] == world]
        if not mine:
            continue
        args = dict(args)
        W.clear()
        W.update(greedy={}, eos=eos if isinstance(eos, int) else eos[0], key=args.pop("key", None))
        with tempfile.TemporaryDirectory() as tmp:
            if W["key"]:
                W["key_file"] = os.path.join(tmp, "keys")
                write_keys(W["key"])
                args["router_args"] = ["--api-key-file", W["key_file"]]
            with ApiCluster(build, model, **args) as c:
                W["cluster"] = c
                for _, name, title, fn in mine:
                    number += 1
                    why = run_case(fn)
                    print(f"{'ok' if why is None else 'not ok'} {number} - {name} {title}", flush=True)
                    if why is not None:
                        n_bad += 1
                        print("# " + why.replace("\n", "\n# "), flush=True)
                        if c.router.poll() is not None:
                            print("# the router is gone:\n# " + c.tail().replace("\n", "\n# "), flush=True)
                            break
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
