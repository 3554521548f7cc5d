"""A small HTTP client for tests: blocking requests, and asyncio streams by the thousand."""

import asyncio
import http.client
import json


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def request(port, method, path, body=None, headers=None, timeout=60):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        h = {"content-type": "application/json"} if data is not None else {}
        conn.request(method, path, data, {**h, **(headers or {})})
        r = conn.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        conn.close()


class Stream:
    """One SSE request. `events` holds the parsed chunks so far, `done` says that [DONE] came."""

    def __init__(self, port, path, body, headers=None):
        self.port, self.path, self.headers = port, path, headers or {}
        self.body = json.dumps({**body, "stream": True}).encode()
        self.events, self.done, self.status, self.error = [], False, None, None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in self.headers.items())
        self.writer.write(f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body)
        await self.writer.drain()

    async def read_head(self):
        self.status = int((await self.reader.readline()).split()[1])
        self.length = None
        while (line := (await self.reader.readline()).strip().lower()):
            if line.startswith(b"content-length:"):
                self.length = int(line.split(b":")[1])
        return self.status

    async def read(self, until=None):
        """Reads events to the end, or until `until` of them came."""
        if self.status is None:
            await self.read_head()
        if self.length is not None:
            self.error = json.loads(await self.reader.readexactly(self.length))
            return
        while until is None or len(self.events) < until:
            n = int((await self.reader.readline()).strip() or b"x", 16)
            data = await self.reader.readexactly(n + 2)
            if n == 0:
                return
            for block in data[:-2].split(b"\n\n"):
                if block == b"data: [DONE]":
                    self.done = True
                elif block.startswith(b"data: "):
                    event = json.loads(block[6:])
                    if "error" in event:
                        self.error = event
                    self.events.append(event)

    async def run(self):
        await self.open()
        await self.read()
        self.close()
        return self

    def close(self):
        self.writer.close()

    def vanish(self):
        """Cuts the connection without a goodbye."""
        self.writer.transport.abort()

    def text(self, index=0):
        out = ""
        for e in self.events:
            for c in e.get("choices", []):
                if c["index"] == index:
                    out += c["delta"].get("content") or "" if "delta" in c else c["text"]
        return out

    def ids(self, index=0):
        return [i for e in self.events for c in e.get("choices", []) if c["index"] == index
                for i in c.get("token_ids") or []]

    def finish(self, index=0):
        reasons = [c["finish_reason"] for e in self.events for c in e.get("choices", []) if c["index"] == index
                   and c.get("finish_reason")]
        assert len(reasons) <= 1, "two finish chunks"
        return reasons[0] if reasons else None


async def gather(streams, limit=None):
    """Runs many streams at once; an exception of one is its `error`."""
    gate = asyncio.Semaphore(limit or len(streams) or 1)

    async def one(s):
        async with gate:
            try:
                await s.run()
            except (OSError, ValueError, IndexError, asyncio.IncompleteReadError) as e:
                s.error = {"error": {"code": "client", "message": repr(e)}}
    await asyncio.gather(*(one(s) for s in streams))
    return streams
