"""Requests that are none, and handshakes that lead nowhere."""

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
    "that posts": (405, b"POST %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "that posts a body": (None, b"POST %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Content-Length: 3\r\n\r\nabc"),
    "with a body": (None, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Content-Length: 3\r\n\r\nabc"),
    "that connects": (405, b"CONNECT %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "of no character set": (400, b"GET %b\xff\xfe HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "to nowhere": (403, b"GET /nowhere HTTP/1.1\r\n" + SOCKET_HEADERS + b"\r\n"),
    "of another site's page": (403, b"GET %b HTTP/1.1\r\n" + SOCKET_HEADERS + b"Origin: https://evil.example\r\n\r\n"),
}


@pytest.mark.parametrize("case", WRONG_HANDSHAKES)
def test_a_wrong_handshake_is_answered_and_the_connection_ends(house: Server, case: str) -> None:
    status, said = WRONG_HANDSHAKES[case]
    with house.unharmed(), RawClient(house.port) as stranger:
        answer = stranger.say(said.replace(b"%b", SOCKET)).say(frame(CLOSE, struct.pack("!H", 1000))).rest()
        assert statuses(answer) == ([] if status is None else [status])


GARBAGE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n",
    "a method of its own": b"FROBNICATE / HTTP/1.1\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nTransfer-Encoding\r\n : chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HEALTHY,
    "chunks of another kind": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HEALTHY,
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "an endless length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a request in a body": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HEALTHY) + HEALTHY,
    "a body that never ends": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc",
    "a chunk that is none": b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "33 KiB of path": b"GET /" + b"x" * 33 * 1024,
    "33 KiB of headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5700,
    "33 KiB of line breaks": b"\r\n" * 17_000,
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_refused_at_once_and_nothing_in_it_is_taken_for_a_request(house: Server, case: str) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        answer = stranger.say(GARBAGE[case]).rest()
        assert statuses(answer) in ([], [400], [405])


def test_a_path_that_leads_out_of_the_folder_is_not_found(house: Server) -> None:
    paths = (b"/static/../web.py", b"/static/%2e%2e/web.py", b"/static//etc/passwd", b"/static/%00", b"/static/..%5cx")
    for path in (*paths, b"/static/" + b"x" * 5000, b"/static/\xc3\xbc", b"/static/%ff", b"/static/.", b"/static"):
        with house.unharmed(), RawClient(house.port) as stranger:
            assert statuses(stranger.say(LAST % path).rest()) in ([404], [400], [307])


def test_requests_one_behind_the_other_are_answered_in_order(house: Server) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        assert statuses(stranger.say(HEALTHY * 500 + LAST % b"/nowhere").rest()) == [200] * 500 + [404]


def test_what_follows_a_request_for_events_does_not_disturb_them(house: Server) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        stranger.say(GET % EVENTS + HEALTHY)
        head, _ = stranger.until(b'"type":"initial-load"')
        assert statuses(head) == [200]


def test_an_upgrade_to_something_else_is_none(house: Server) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        stranger.say(GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n") % b"/healthz")
        assert statuses(stranger.finish()) == [200]


@pytest.mark.parametrize("last", ["9" * 5000, "1-" + "9" * 400, "-1-1", "1-1\0", "²-³", "*", "x" * 4000])
def test_a_last_event_id_that_is_none_begins_with_a_snapshot(house: Server, last: str) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        stranger.say(b"GET %b HTTP/1.1\r\nHost: x\r\n" % EVENTS)
        stranger.say(b"Last-Event-ID: %b\r\n\r\n" % last.replace("\0", "").encode())
        _, rest = stranger.until(b"data: ")
        while b"\n\n" not in rest:
            rest += stranger.socket.recv(1 << 16)
        assert json.loads(rest.partition(b"\n")[0])["recovered"] is False


def test_match_ids_that_no_database_takes_are_matches_without_a_snapshot(house: Server) -> None:
    for match in ("%00", "%ff", "%F0%9F%8F%88", "'; DROP TABLE matches; --".replace(" ", "%20"), "x" * 4000):
        with house.unharmed(), RawClient(house.port).enter(match) as stranger:
            stranger.say(frame(CLOSE, struct.pack("!H", 1000)))
            assert frames(stranger.rest())[-1].opcode == CLOSE


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", HEALTHY])
def test_who_takes_more_than_10_s_for_a_head_is_cut_off(house: Server, before: bytes, start: bytes) -> None:
    with house.unharmed(), RawClient(house.port) as stranger:
        stranger.socket.settimeout(15 if start else 80)  # a connection may rest for 75 s between two requests
        if before:
            stranger.say(before).until(b'{"alive":true}')
        assert stranger.say(start).rest() == b""


@pytest.mark.long
@pytest.mark.timeout(180)
def test_400_who_send_a_head_byte_by_byte_are_cut_off_and_keep_nobody_out(house: Server) -> None:
    with house.unharmed(settles_within=30):
        strangers = [RawClient(house.port) for _ in range(400)]
        for byte in b"GET / HTTP/1.1":
            for stranger in strangers:
                stranger.say(bytes([byte]))
            assert house.app.get("/healthz")[0] == 200
        for stranger in strangers:
            stranger.socket.settimeout(15)
            assert stranger.rest() == b""
            stranger.socket.close()
