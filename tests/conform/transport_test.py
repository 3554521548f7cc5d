"""transport_test.py HTTP_TOOL: bytes on the wire of the HTTP server, by raw sockets.

The cases of the contract that concern the transport, by number. Every wait is bounded. The server's
own limits are set small where a case is about time.
"""

import random
import re
import socket
import struct
import subprocess
import sys
import time
import unittest

TOOL = ""
WAIT_S = 30  # for a machine that does much else
H = b"host: a\r\n"


class Server:
    def __init__(self, *limits):
        self.process = subprocess.Popen([TOOL, *limits], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().split()[1])

    def stop(self):
        self.process.terminate()
        self.process.stdout.close()
        return self.process.wait(WAIT_S)

    def dial(self):
        s = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def ask(self, data, half_close=False):
        """Everything the server sends until it closes; b"" is added by a reset."""
        with self.dial() as s:
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
            return drain(s)

    def stats(self):
        with self.dial() as s:
            s.sendall(b"GET /stats HTTP/1.1\r\n" + H + b"\r\n")
            body = answer(s)[2]
            return {k.decode(): int(v) for k, v in (f.split(b"=") for f in body.split())}


def drain(s):
    data = b""
    try:
        while part := s.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


class Reader:
    """Cuts answers out of one connection."""

    def __init__(self, s):
        self.s, self.data = s, b""

    def until(self, mark):
        while mark not in self.data:
            part = self.s.recv(65536)
            if not part:
                raise EOFError(self.data)
            self.data += part
        head, _, self.data = self.data.partition(mark)
        return head + mark

    def exactly(self, n):
        while len(self.data) < n:
            part = self.s.recv(65536)
            if not part:
                raise EOFError(self.data)
            self.data += part
        body, self.data = self.data[:n], self.data[n:]
        return body

    def answer(self, head_only=False):
        head = self.until(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        if status == 100 or head_only:
            return status, fields, b""
        if fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self.exactly(2) == b"\r\n"
            return status, fields, body
        return status, fields, self.exactly(int(fields.get(b"content-length", 0)))


def answer(s):
    return Reader(s).answer()


def get(path, *lines, method=b"GET"):
    return method + b" " + path + b" HTTP/1.1\r\n" + H + b"".join(l + b"\r\n" for l in lines) + b"\r\n"


def post(path, body, *lines):
    return get(path, b"content-length: %d" % len(body), *lines, method=b"POST") + body


CHUNKED = b"POST /echo HTTP/1.1\r\n" + H + b"transfer-encoding: chunked\r\n\r\n"


class Transport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "the server did not end cleanly"

    def until(self, name, before):
        deadline = time.monotonic() + WAIT_S
        while self.server.stats()[name] == before[name]:
            self.assertLess(time.monotonic(), deadline, name)

    def refused(self, data, status):
        """Exactly one answer with this status, close, and nothing behind it was executed."""
        before = self.server.stats()["requests"]
        got = self.server.ask(data + get(b"/smuggled"))
        self.assertRegex(got, rb"^HTTP/1\.1 %d " % status, data)
        self.assertEqual(got.count(b"HTTP/1.1 "), 1, data)
        self.assertIn(b"connection: close\r\n", got, data)
        # A body's fault comes after its head was handed up; what is behind it must never be.
        limit = before + (1 if data.startswith(CHUNKED) else 0)
        self.assertLessEqual(self.server.stats()["requests"], limit, data)

    def test_c005_paths_are_normalised(self):
        for path in (b"/v1//models", b"/v1/models/", b"//v1/models", b"/v1/%6dodels", b"/v1/models?x=1",
                     b"http://other.example/v1/models"):
            with self.server.dial() as s:
                s.sendall(get(path))
                self.assertEqual(answer(s)[::2], (200, b"models"), path)

    def test_c178_path_tricks_never_reach_the_route(self):
        for path, want in ((b"/v1/../v1/models", 400), (b"/v1/%2e%2e/v1/models", 400), (b"/V1/models", 404),
                           (b"/v1/models%00", 400), (b"/v1\\models", 404), (b"/v1/models;x", 404)):
            with self.server.dial() as s:
                s.sendall(get(path))
                self.assertEqual(answer(s)[0], want, path)

    def test_c172_too_long_a_body_is_refused_before_it_is_sent(self):
        for extra in ((), (b"expect: 100-continue",)):
            with self.server.dial() as s:
                s.sendall(get(b"/echo", b"content-length: 104857600", *extra, method=b"POST"))
                got = drain(s)
                self.assertRegex(got, rb"^HTTP/1\.1 413 Content Too Large\r\n")
                self.assertIn(b"connection: close", got)

    def test_c173_a_chunked_body_is_refused_where_it_crosses_the_limit(self):
        self.refused(CHUNKED + b"4000001\r\n", 413)
        block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with self.server.dial() as s:
            s.sendall(CHUNKED)
            for _ in range(64):
                s.sendall(block)
            s.sendall(b"1\r\n")
            self.assertRegex(drain(s), rb"^HTTP/1\.1 413 ")

    def test_c174_continue_only_for_a_request_that_is_wanted(self):
        with self.server.dial() as s:
            r = Reader(s)
            s.sendall(get(b"/auth", b"authorization: Bearer k", b"expect: 100-continue", b"content-length: 2",
                          method=b"POST"))
            self.assertEqual(r.answer()[0], 100)
            s.sendall(b"ok")
            self.assertEqual(r.answer()[::2], (200, b"ok"))
        got = self.server.ask(get(b"/auth", b"expect: 100-continue", b"content-length: 2", method=b"POST"))
        self.assertRegex(got, rb"^HTTP/1\.1 401 Unauthorized\r\n")
        self.assertIn(b"connection: close", got)

    def test_c175_another_expectation_is_417(self):
        self.refused(get(b"/echo", b"expect: foo", b"content-length: 2", method=b"POST"), 417)

    def test_c179_length_and_coding_together(self):
        for lines in ((b"content-length: 5", b"transfer-encoding: chunked"),
                      (b"transfer-encoding: chunked", b"content-length: 5")):
            self.refused(get(b"/echo", *lines, method=b"POST") + b"0\r\n\r\n", 400)

    def test_c180_two_lengths(self):
        for second in (b"5", b"6"):
            self.refused(get(b"/echo", b"content-length: 5", b"content-length: " + second, method=b"POST")
                         + b"hello", 400)
        self.refused(get(b"/echo", b"content-length: 5, 5", method=b"POST") + b"hello", 400)

    def test_c181_transfer_codings(self):
        for value, want in ((b" gzip, chunked", 501), (b" gzip", 501), (b" chunked, chunked", 400),
                            (b" xchunked", 400), (b" chunked ", 400), (b" chunked\t", 400),
                            (b"\tchunked", 400), (b" \tchunked", 400), (b" chunked\x0b", 400)):
            self.refused(get(b"/echo", b"transfer-encoding:" + value, method=b"POST") + b"0\r\n\r\n", want)
        self.refused(b"POST /echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400)

    def test_c182_header_lines(self):
        for line in (b"x-a : b", b"x-a: b\r\n folded", b"x-a: b\r\n\tfolded", b"x-a: b\nx-c: d", b"x-a: \0",
                     b"x\0: a", b"x-a: b\rc", b"x-\xff: a", b": b", b"x-a"):
            self.refused(get(b"/hello", line), 400)

    def test_c183_chunk_framing(self):
        for body in (b"0x10\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"10 ;x\r\n", b"5\r\nhelloX0\r\n\r\n",
                     b"5\r\nhello0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"0\r\nx y: z\r\n\r\n",
                     b"5;" + b"e" * 257 + b"\r\n", b"0" * 65 + b"\r\n", b"0\r\nt: " + b"t" * 5000 + b"\r\n\r\n"):
            self.refused(CHUNKED + body, 400)

    def test_c185_head_limits(self):
        self.refused(get(b"/hello", b"x: " + b"x" * 17 * 1024), 431)
        self.refused(get(b"/hello", *(b"x-%d: y" % i for i in range(128))), 431)
        self.refused(get(b"/hello", *(b"x-%d: %s" % (i, b"y" * 15000) for i in range(5))), 431)
        self.refused(get(b"/" + b"x" * 9 * 1024), 414)
        with self.server.dial() as s:
            s.sendall(get(b"/hello", *(b"x-%d: y" % i for i in range(127))))
            self.assertEqual(answer(s)[0], 200)

    def test_c186_host(self):
        self.refused(b"GET /hello HTTP/1.1\r\n\r\n", 400)
        self.refused(get(b"/hello", b"host: b"), 400)
        self.refused(b"GET /hello HTTP/1.1\r\nhost: a/b\r\n\r\n", 400)
        self.refused(get(b"http://u@a/hello"), 400)
        got = self.server.ask(b"GET /hello HTTP/1.0\r\n\r\n")
        self.assertRegex(got, rb"^HTTP/1\.1 200 OK\r\n")
        self.assertIn(b"connection: close", got)

    def test_c187_versions(self):
        self.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
        self.refused(b"GET / HTTP/3.0\r\n" + H + b"\r\n", 505)
        self.refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)

    def test_c188_ten_pipelined_requests(self):
        with self.server.dial() as s:
            s.sendall(b"".join(post(b"/echo", b"%d" % i) for i in range(10)))
            r = Reader(s)
            self.assertEqual([r.answer()[2] for _ in range(10)], [b"%d" % i for i in range(10)])

    def test_c189_a_stream_then_a_request(self):
        with self.server.dial() as s:
            s.sendall(post(b"/stream?n=5&ms=5", b"{}") + get(b"/hello"))
            r = Reader(s)
            status, fields, body = r.answer()
            self.assertEqual(status, 200)
            self.assertEqual(body, b"".join(b'data: {"n":%d}\n\n' % i for i in range(5)) + b"data: [DONE]\n\n")
            self.assertEqual(fields[b"content-type"], b"text/event-stream; charset=utf-8")
            self.assertEqual(r.answer()[::2], (200, b"h" * 100))

    def test_events_and_chunks(self):
        with self.server.dial() as s:
            s.sendall(get(b"/stream?n=3&ms=5"))
            r = Reader(s)
            r.until(b"\r\n\r\n")
            r.until(b"0\r\n\r\n")
        with self.server.dial() as s:
            s.sendall(get(b"/stream?n=3&ms=5", b"connection: close"))
            raw = drain(s).partition(b"\r\n\r\n")[2]
            chunks = re.findall(rb"[0-9a-f]+\r\n(data: .*?\n\n)\r\n", raw, re.S)
            self.assertEqual(len(chunks), 4)
            self.assertTrue(raw.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"))

    def test_c190_the_connection_is_used_again_after_errors_without_close(self):
        with self.server.dial() as s:
            r = Reader(s)
            for request, want in ((get(b"/nope"), 404), (get(b"/a/../b"), 400), (post(b"/auth", b"x" * 1000), 401),
                                  (get(b"/hello", method=b"TRACE"), 405), (get(b"/hello"), 200),
                                  (b"\r\n" + get(b"/hello"), 200)):
                s.sendall(request)
                self.assertEqual(r.answer()[0], want)
            s.sendall(b"CONNECT a.example:443 HTTP/1.1\r\n" + H + b"\r\n")
            self.assertEqual(r.answer()[0], 405)
            s.sendall(get(b"/hello", method=b"HEAD"))
            status, fields, _ = r.answer(head_only=True)
            self.assertEqual((status, fields[b"content-length"]), (200, b"100"))
            s.sendall(get(b"/hello", b"upgrade: h2c", b"connection: upgrade, http2-settings"))
            self.assertEqual(r.answer()[0], 200)

    def test_every_cut_gives_the_same_answer(self):
        whole = post(b"/echo", b"hello", b"x-a: b")
        chunked = CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: v\r\n\r\n"
        with self.server.dial() as s:
            r = Reader(s)
            for data in (whole, chunked):
                for at in range(1, len(data)):
                    s.sendall(data[:at])
                    s.sendall(data[at:])
                    self.assertEqual(r.answer()[::2], (200, b"hello"))
                for i in range(len(data)):
                    s.sendall(data[i:i + 1])
                self.assertEqual(r.answer()[::2], (200, b"hello"))

    def test_a_client_that_leaves_is_noticed_at_once(self):
        for how in ("half close", "close", "reset", "close with pipelined bytes"):
            before = self.server.stats()
            s = self.server.dial()
            s.sendall(get(b"/later?ms=60000"))
            self.until("requests", before)  # a client that leaves before it was heard is nobody
            if how == "half close":
                s.shutdown(socket.SHUT_WR)
            elif how == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "close with pipelined bytes":
                s.sendall(b"x" * 100000)
            if how != "half close":
                s.close()
            self.until("gone", before)
            s.close()

    def test_mutated_requests_never_hurt_the_server(self):
        rng = random.Random(1)
        seeds = [get(b"/v1/models", b"x: y"), post(b"/echo", b"hello"), CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"]
        for _ in range(1500):
            data = bytearray(rng.choice(seeds))
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(data))
                data[at:at + rng.randint(0, 3)] = bytes(rng.choice(b"\r\n :;0aX\x00\x80,") for _ in range(rng.randint(0, 3)))
            got = self.server.ask(bytes(data), half_close=True)
            self.assertRegex(got, rb"^(HTTP/1\.1 (200|400|401|404|405|413|417|431|501|505) |$)", bytes(data))
        self.assertEqual(self.server.stats()["conns"], 1)


class Time(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("first_byte_ms=200", "head_ms=400", "body_idle_ms=400", "body_base_ms=2000", "idle_ms=600")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "the server did not end cleanly"

    def test_c191_slow_heads_end_with_408_and_delay_nobody(self):
        slow = []
        for _ in range(200):
            s = self.server.dial()
            s.sendall(b"GET /hello HT")
            slow.append((s, time.monotonic()))
        with self.server.dial() as s:
            r = Reader(s)
            for _ in range(100):
                s.sendall(get(b"/hello"))
                self.assertEqual(r.answer()[0], 200)
        for _ in range(10):  # a byte now and then buys no time
            time.sleep(0.03)
            for s, began in slow[:20]:
                try:
                    s.sendall(b"T")
                except (BrokenPipeError, ConnectionResetError):
                    self.assertGreaterEqual(time.monotonic() - began, 0.35)
        for s, began in slow:
            self.assertRegex(drain(s), rb"^HTTP/1\.1 408 Request Timeout\r\n|^$")
            self.assertGreaterEqual(time.monotonic() - began, 0.35)
            s.close()

    def test_c192_a_slow_body_ends_with_408(self):
        with self.server.dial() as s:
            s.sendall(get(b"/echo", b"content-length: 10", method=b"POST") + b"12345")
            began = time.monotonic()
            self.assertRegex(drain(s), rb"^HTTP/1\.1 408 Request Timeout\r\n")
            self.assertGreaterEqual(time.monotonic() - began, 0.35)

    def test_c193_idle_connections_close_without_a_word(self):
        with self.server.dial() as s, self.server.dial() as silent:
            began = time.monotonic()
            s.sendall(get(b"/hello"))
            r = Reader(s)
            r.answer()
            self.assertEqual(drain(silent), b"")
            self.assertGreaterEqual(time.monotonic() - began, 0.15)
            self.assertEqual(r.data + drain(s), b"")
            self.assertGreaterEqual(time.monotonic() - began, 0.55)


class Limits(unittest.TestCase):
    def test_connections_over_the_limit_get_503_and_room_comes_back(self):
        server = Server("n_conns=4")
        held = [server.dial() for _ in range(4)]
        for s in held:
            s.sendall(get(b"/hello"))
            answer(s)
        with server.dial() as s:
            self.assertRegex(drain(s), rb"^HTTP/1\.1 503 Service Unavailable\r\n")
        held.pop().close()
        deadline = time.monotonic() + WAIT_S
        while True:
            with server.dial() as s:
                s.sendall(get(b"/hello"))
                if answer(s)[0] == 200:
                    break
            self.assertLess(time.monotonic(), deadline)
        for s in held:
            s.close()
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    TOOL = sys.argv.pop(1)
    unittest.main(verbosity=2)
