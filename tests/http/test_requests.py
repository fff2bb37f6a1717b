"""Invalid requests, and handshakes that fail."""

import json
import struct

import pytest

from tests.http.raw_client import CLOSE, KEY, SOCKET_HEADERS, UPGRADE, RawClient, frame, frames, statuses
from tests.http.server import Server

SOCKET = b"/api/matches/ws/id/1/x/"
EVENTS = b"/api/matches/1/events"
GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEALTHY = GET % b"/healthz"
WRONG_HANDSHAKES = {
    "without a key": (400, b"GET %b HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n"),
    "with a short key": (400, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS.replace(b"AAAA==", b"A") + b"\r\n"),
    "with two keys": (400, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + KEY + b"\r\n"),
    "of version 8": (400, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS.replace(b"13", b"8") + b"\r\n"),
    "with a path of 9,000 bytes": (414, b"GET %b" + b"x" * 9000 + b" HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "with a header of 9,000 bytes": (
        431,
        b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Cookie: " + b"x" * 9000 + b"\r\n\r\n",
    ),
    "with 200 headers": (431, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"A: b\r\n" * 200 + b"\r\n"),
    "with POST": (405, b"POST %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "with POST and a body": (None, b"POST %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Content-Length: 3\r\n\r\nabc"),
    "with a body": (None, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Content-Length: 3\r\n\r\nabc"),
    "with CONNECT": (405, b"CONNECT %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "with a path that is not ASCII": (400, b"GET %b\xff\xfe HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "for an unknown path": (403, b"GET /nowhere HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "from a page of another site": (
        403,
        b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Origin: https://evil.example\r\n\r\n",
    ),
}


@pytest.mark.parametrize("case", WRONG_HANDSHAKES)
def test_a_wrong_handshake_is_answered_and_the_connection_ends(server: Server, case: str) -> None:
    status, sent = WRONG_HANDSHAKES[case]
    with server.unaffected(), RawClient(server.port) as client:
        answer = client.send(sent.replace(b"%b", SOCKET)).send(frame(CLOSE, struct.pack("!H", 1000))).read_all()
        assert statuses(answer) == ([] if status is None else [status])


INVALID_REQUESTS = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n",
    "an unknown method": b"FROBNICATE / HTTP/1.1\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nTransfer-Encoding\r\n : chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HEALTHY,
    "an unknown transfer encoding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    + HEALTHY,
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length of 30 digits": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a request in a body": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HEALTHY) + HEALTHY,
    "a body that never ends": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc",
    "an invalid chunk": b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "33 KiB of path": b"GET /" + b"x" * 33 * 1024,
    "33 KiB of headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5700,
    "33 KiB of line breaks": b"\r\n" * 17_000,
}


@pytest.mark.parametrize("case", INVALID_REQUESTS)
def test_an_invalid_request_is_refused_at_once_and_no_part_of_it_is_read_as_another(server: Server, case: str) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        answer = client.send(INVALID_REQUESTS[case]).read_all()
        assert statuses(answer) in ([], [400], [405])


def test_a_path_out_of_the_static_folder_is_not_found(server: Server) -> None:
    paths = (b"/static/../web.py", b"/static/%2e%2e/web.py", b"/static//etc/passwd", b"/static/%00", b"/static/..%5cx")
    for path in (*paths, b"/static/" + b"x" * 5000, b"/static/\xc3\xbc", b"/static/%ff", b"/static/.", b"/static"):
        with server.unaffected(), RawClient(server.port) as client:
            assert statuses(client.send(LAST % path).read_all()) in ([404], [400], [307])


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        assert statuses(client.send(HEALTHY * 500 + LAST % b"/nowhere").read_all()) == [200] * 500 + [404]


def test_a_request_behind_one_for_an_event_stream_does_not_disturb_the_stream(server: Server) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        client.send(GET % EVENTS + HEALTHY)
        head, _ = client.read_until(b'"type":"initial-load"')
        assert statuses(head) == [200]


def test_an_upgrade_to_another_protocol_is_ignored(server: Server) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        client.send(GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n") % b"/healthz")
        assert statuses(client.end()) == [200]


@pytest.mark.parametrize("last", ["9" * 5000, "1-" + "9" * 400, "-1-1", "1-1\0", "²-³", "*", "x" * 4000])
def test_a_client_with_an_invalid_last_event_id_starts_with_a_snapshot(server: Server, last: str) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n" % EVENTS)
        client.send(b"Last-Event-ID: %b\r\n\r\n" % last.replace("\0", "").encode())
        _, rest = client.read_until(b"data: ")
        while b"\n\n" not in rest:
            rest += client.socket.recv(1 << 16)
        assert json.loads(rest.partition(b"\n")[0])["recovered"] is False


def test_a_match_id_that_the_database_refuses_is_a_match_without_a_snapshot(server: Server) -> None:
    for match in ("%00", "%ff", "%F0%9F%8F%88", "'; DROP TABLE matches; --".replace(" ", "%20"), "x" * 4000):
        with server.unaffected(), RawClient(server.port).open_websocket(match) as client:
            client.send(frame(CLOSE, struct.pack("!H", 1000)))
            assert frames(client.read_all())[-1].opcode == CLOSE


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", HEALTHY])
def test_a_connection_without_a_whole_head_after_10_s_is_closed(server: Server, before: bytes, start: bytes) -> None:
    with server.unaffected(), RawClient(server.port) as client:
        client.socket.settimeout(15 if start else 80)  # a connection may be idle for 75 s between two requests
        if before:
            client.send(before).read_until(b'{"alive":true}')
        assert client.send(start).read_all() == b""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_400_connections_that_send_a_head_byte_by_byte_are_closed_and_keep_no_client_out(server: Server) -> None:
    with server.unaffected(settle_seconds=30):
        clients = [RawClient(server.port) for _ in range(400)]
        for byte in b"GET / HTTP/1.1":
            for client in clients:
                client.send(bytes([byte]))
            assert server.app.get("/healthz")[0] == 200
        for client in clients:
            client.socket.settimeout(15)
            assert client.read_all() == b""
            client.socket.close()
