"""The OpenAI Python SDK, unmodified, against a real cluster on the demo model.

Usage: openai_test.py BUILD_DIR MODEL_DIR
"""

import sys

import openai
import tap
from cluster import Cluster

MESSAGES = [{"role": "user", "content": "What is a penstock?"}]
state = {}


def client():
    return openai.OpenAI(base_url=f"http://127.0.0.1:{state['c'].port}/v1", api_key="unused", max_retries=0, timeout=60)


def test_chat(_):
    r = client().chat.completions.create(model="default", messages=MESSAGES, temperature=0, max_tokens=80)
    text = r.choices[0].message.content
    assert r.choices[0].message.role == "assistant" and "penstock" in text.lower(), text
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    state["text"] = text
    return text[:60]


def test_streamed_chat_is_the_same_text(_):
    parts, finish, usage = [], None, None
    for chunk in client().chat.completions.create(model="default", messages=MESSAGES, temperature=0, max_tokens=80,
                                                  stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for c in chunk.choices:
            parts.append(c.delta.content or "")
            finish = c.finish_reason or finish
    assert "".join(parts) == state["text"] and finish in ("stop", "length") and usage.completion_tokens > 0
    assert len(parts) > 3, "not streamed"


def test_stream_helper(_):
    with client().chat.completions.stream(model="default", messages=MESSAGES, temperature=0, max_tokens=80) as s:
        assert s.get_final_completion().choices[0].message.content == state["text"]


def test_choices_and_seeds(_):
    def three(seed):
        r = client().chat.completions.create(model="default", messages=MESSAGES, n=3, seed=seed, temperature=1.2,
                                             max_tokens=20)
        return [c.message.content for c in sorted(r.choices, key=lambda c: c.index)]
    a, b, other = three(7), three(7), three(8)
    assert a == b, "same seed, other text"
    assert a != other and len(set(a)) > 1, "seeds and choices do not differ"


def test_log_probabilities(_):
    r = client().chat.completions.create(model="default", messages=MESSAGES, temperature=0, max_tokens=8, logprobs=True,
                                         top_logprobs=5)
    entries = r.choices[0].logprobs.content
    assert len(entries) == r.usage.completion_tokens
    for e in entries:
        assert e.logprob <= 0 and len(e.top_logprobs) == 5
        assert e.top_logprobs[0].logprob == max(t.logprob for t in e.top_logprobs) and e.top_logprobs[0].token == e.token


def test_completions(_):
    r = client().completions.create(model="default", prompt=["A router", "A worker"], max_tokens=5, temperature=0, n=2,
                                    logprobs=2, echo=True)
    assert [c.index for c in sorted(r.choices, key=lambda c: c.index)] == [0, 1, 2, 3]
    assert r.choices[0].text.startswith("A router") and r.choices[0].logprobs.token_logprobs[0] is None


def test_streamed_completion(_):
    whole = client().completions.create(model="default", prompt="A router", max_tokens=12, temperature=0).choices[0].text
    parts = [c.choices[0].text for c in client().completions.create(model="default", prompt="A router", max_tokens=12,
                                                                    temperature=0, stream=True) if c.choices]
    assert "".join(parts) == whole


def test_models(_):
    ids = [m.id for m in client().models.list()]
    assert ids[0] == "m" and client().models.retrieve("m").id == "m"


def refused(kind, call):
    try:
        call()
    except kind as e:
        return e
    raise AssertionError(f"no {kind.__name__}")


def test_errors(_):
    c = client()
    e = refused(openai.BadRequestError, lambda: c.chat.completions.create(model="default", messages=MESSAGES,
                                                                          temperature=9))
    assert e.param == "temperature" and e.code == "invalid_value" and e.type == "invalid_request_error", e.body
    e = refused(openai.NotFoundError, lambda: c.chat.completions.create(model="nope", messages=MESSAGES))
    assert e.code == "model_not_found"
    e = refused(openai.BadRequestError, lambda: c.chat.completions.create(model="default", messages=[]))
    assert e.param == "messages"
    e = refused(openai.BadRequestError, lambda: c.completions.create(model="default", prompt=[5] * 5000))
    assert e.code == "context_length_exceeded" and "maximum context length is" in str(e)


def main():
    with Cluster(sys.argv[1], sys.argv[2], 2) as c:
        state["c"] = c
        tap.run([test_chat, test_streamed_chat_is_the_same_text, test_stream_helper, test_choices_and_seeds,
                 test_log_probabilities, test_completions, test_streamed_completion, test_models, test_errors], c)


main()
