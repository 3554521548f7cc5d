"""What a worker's KV tiers do is told: prompts that T0 has no room for come back from the host and from the disk.

Usage: tiers_test.py BUILD_DIR MODEL_DIR
"""

import os
import re
import sys
import tempfile

import tap
from client import request
from cluster import Cluster

PAGE_TOKENS = 16
PROMPT_TOKENS = 40 * PAGE_TOKENS
N_PROMPTS = 12
SERIES = re.compile(r'^(\w[\w:]*)\{(.*)\} ([0-9.e+-]+)$')


def metrics(port):
    """{(family, worker, tier or group): value} of this repository's KV families; their text must be well-formed."""
    out, families = {}, set()
    for line in request(port, "GET", "/metrics").body.decode().splitlines():
        if line.startswith("# TYPE "):
            families.add(line.split()[2])
        m = SERIES.match(line)
        if m and m[1].startswith(("penstock_kv_", "penstock_worker_")):
            assert m[1] in families, f"{line}: before its TYPE"
            labels = dict(x.split("=", 1) for x in m[2].replace('"', "").split(","))
            key = m[1], labels["worker"], labels.get("tier", labels.get("group"))
            assert key not in out, f"{line}: twice"
            out[key] = float(m[3])
    return out


def ask(c, i):
    """A prompt that shares nothing with the others."""
    ids = [(7 * i + 13 * k + i * k) % 1500 + 300 for k in range(PROMPT_TOKENS + 1)]
    r = request(c.port, "POST", "/v1/completions",
                {"model": "m", "prompt": ids, "max_tokens": 2, "temperature": 0, "ignore_eos": True})
    assert r.status == 200, r.body
    return r.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def tier(c, name):
    return next(t for t in c.stats()["workers"][0]["kv_tiers"] if t["tier"] == name)


def page_bytes(build, model):
    with Cluster(build, model, worker_args=["--kv-bytes", "16MiB"]) as c:
        c.wait(lambda: c.stats()["workers"][0]["kv_total_pages"] > 0, 10, "pages")
        return (16 << 20) // c.stats()["workers"][0]["kv_total_pages"] // 4096 * 4096


def test_tiers_are_told(build, model):
    page = page_bytes(build, model)
    with tempfile.TemporaryDirectory() as tmp:
        # T0 holds two of the prompts, T1 four, T2 all.
        args = ["--kv-bytes", 100 * page, "--kv-host-bytes", 160 * page, "--kv-disk", os.path.join(tmp, "t2"),
                "--kv-disk-bytes", 1000 * page]
        with Cluster(build, model, worker_args=args) as c:
            for _ in range(2):  # the second use is what copies a page down
                for i in range(N_PROMPTS):
                    ask(c, i)
            c.wait(lambda: tier(c, "t2")["cleaned_pages"] >= N_PROMPTS * 20 and tier(c, "t2")["queued_moves"] == 0,
                   20, "pages on disk")
            for i in reversed(range(N_PROMPTS)):  # the newest are in T0 and T1 still
                assert ask(c, i) >= PROMPT_TOKENS - PAGE_TOKENS, f"prompt {i} was computed again"
            c.wait_idle()
            c.wait(lambda: tier(c, "t0")["queued_moves"] == 0, 10, "moves to end")
            m, w = metrics(c.port), c.stats()["workers"][0]
    slot = str(w["slot"])
    of = lambda name, t: m["penstock_kv_tier_" + name, slot, t]  # noqa: E731
    assert [t["tier"] for t in w["kv_tiers"]] == ["t0", "t1", "t2"], w["kv_tiers"]
    assert all(of("open", t) == 1 for t in ("t0", "t1", "t2")) and ("penstock_kv_tier_open", slot, "t3") not in m
    assert (of("pages", "t0"), of("pages", "t1")) == (100, 160) and of("pages", "t2") > 160
    assert of("evicted_pages_total", "t0") > 300, "T0 forgot nothing"
    assert of("cleaned_pages_total", "t1") > 100 and of("cleaned_pages_total", "t2") > 100
    fetched = of("fetched_tokens_total", "t1") + of("fetched_tokens_total", "t2")
    assert of("fetched_tokens_total", "t1") > 0 and of("fetched_tokens_total", "t2") > 0, w["kv_tiers"]
    assert of("read_bytes_total", "t2") >= of("useful_bytes_total", "t2") == \
        of("fetched_tokens_total", "t2") / PAGE_TOKENS * page
    assert of("write_bytes_total", "t2") == of("cleaned_pages_total", "t2") * page
    assert all(of(x + "_pages_total", "t2") == 0 for x in ("bad", "fault", "full"))
    assert m["penstock_kv_fetches_total", slot, None] > 0 and m["penstock_kv_fetch_wait_seconds_total", slot, None] > 0
    assert m["penstock_worker_cached_tokens_total", slot, None] >= fetched
    g = w["kv_groups"]
    assert len(g) == 1 and g[0]["n_total"] == w["kv_total_pages"] == 100 and g[0]["n_pinned"] == 0
    assert g[0]["n_free"] + g[0]["n_evictable"] == 100 == m["penstock_kv_group_items", slot, "0"]
    for t in w["kv_tiers"]:
        assert of("read_bytes_total", t["tier"]) == t["read_bytes"], t
    return f"{fetched:.0f} tokens fetched, {of('fetched_tokens_total', 't2'):.0f} of them from disk"


tap.run([test_tiers_are_told], *sys.argv[1:3])
