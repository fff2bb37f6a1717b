"""Random bytes for every endpoint. A failure shows the seed and the number of the string."""

import struct
from collections.abc import Callable
from random import Random, randrange

import pytest

from tests.http.raw_client import CLOSE, PONG, SOCKET_HEADERS, TEXT, UPGRADE, RawClient, frame, frames, statuses
from tests.http.server import Server

Draw = Callable[[Random], bytes]
SOCKET = b"/api/matches/ws/id/1/x/"
EVENTS = b"/api/matches/1/events"
_WORDS = [
    b"GET ",
    b"POST ",
    b"/",
    b"?",
    b"%",
    b" HTTP/1.1",
    b"\r\n",
    b"\r\n\r\n",
    b":",
    b"Host: x",
    b"Origin: http://x",
]
_BODIES = [b"Content-Length: 3", b"Transfer-Encoding: chunked", b"0\r\n\r\n"]
_TOKENS = [*_WORDS, *_BODIES, UPGRADE, SOCKET_HEADERS, SOCKET, EVENTS]


def noise(rng: Random, max_bytes: int = 300) -> bytes:
    return rng.randbytes(rng.randrange(max_bytes))


def text(rng: Random) -> bytes:
    """Return a random path, mostly percent-encoded."""
    return b"".join(b"%%%02x" % byte if rng.random() < 0.8 else bytes([byte]) for byte in noise(rng, 60) if byte > 32)


def tokens(rng: Random) -> bytes:
    """Return words of HTTP in a random order."""
    return b"".join(rng.choice(_TOKENS) if rng.random() < 0.9 else noise(rng, 9) for _ in range(rng.randrange(20)))


def mutated(rng: Random, request: bytes) -> bytes:
    """Return a valid request in which some bytes are replaced, removed or repeated."""
    changed = bytearray(request)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(changed)


def get(path: bytes, headers: bytes = b"Host: x\r\n") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + headers + b"\r\n"


def some_frame(rng: Random) -> bytes:
    """Return a frame that may be valid, but mostly is not."""
    opcode, flags = rng.choice([TEXT, CLOSE, PONG, rng.randrange(16)]), rng.choice([0, 0, 0, 0x10, 0x40])
    payload = noise(rng, 5000 if rng.random() < 0.1 else 130)
    sent = frame(opcode, payload, fin=rng.random() < 0.8, masked=rng.random() < 0.95, flags=flags)
    return sent if rng.random() < 0.8 else mutated(rng, sent)


REQUESTS: dict[str, Draw] = {
    "anything": noise,
    "HTTP's words": tokens,
    "a path": lambda rng: get(b"/" + text(rng)),
    "a file": lambda rng: get(b"/static/" + text(rng)),
    "a file's headers": lambda rng: get(b"/static/demo.css", b"Range: bytes=" + tokens(rng) + b"\r\nAccept-Encoding: "),
    "a body": lambda rng: b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + noise(rng),
    "what follows a request": lambda rng: get(b"/healthz") + noise(rng),
    "a page": lambda rng: mutated(rng, get(b"/")),
    "events": lambda rng: mutated(rng, get(EVENTS, b"Host: x\r\nLast-Event-ID: 1-2\r\nAccept: */*\r\n")),
    "events' match": lambda rng: get(b"/api/matches/" + text(rng) + b"/events?last_event_id=" + text(rng)),
    "events' headers": lambda rng: get(EVENTS, b"Last-Event-ID: " + noise(rng, 20) + b"\r\nOrigin: " + noise(rng, 20)),
    "a body of events": lambda rng: get(EVENTS, b"Content-Length: 1000\r\n") + noise(rng, 2000),
    "a handshake": lambda rng: mutated(rng, get(SOCKET, SOCKET_HEADERS)),
    "a handshake's path": lambda rng: get(b"/api/matches/ws/id/" + text(rng) + b"/" + text(rng), SOCKET_HEADERS),
    "a handshake's headers": lambda rng: get(SOCKET, SOCKET_HEADERS + b"Sec-WebSocket-Extensions: " + tokens(rng)),
}
MESSAGES: dict[str, Draw] = {
    "anything": noise,
    "frames": lambda rng: b"".join(some_frame(rng) for _ in range(rng.randrange(1, 8))),
    "a frame": some_frame,
}
strings = pytest.mark.parametrize(
    "count", [25, pytest.param(2_500, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)


@strings
@pytest.mark.parametrize("kind", REQUESTS)
def test_random_bytes_for_a_request_are_refused_and_affect_no_other_client(
    server: Server, kind: str, count: int
) -> None:
    seed = randrange(1 << 31)
    with server.unaffected(settle_seconds=20):
        for number in range(count):
            rng = Random(f"{seed} {number}")
            with RawClient(server.port) as client:
                client.send(REQUESTS[kind](rng))
                if rng.random() < 0.2:
                    client.reset()
                    continue
                answer = client.end()
                assert not any(status >= 500 for status in statuses(answer)), (seed, number, answer)


@strings
@pytest.mark.parametrize("kind", MESSAGES)
def test_random_bytes_for_a_message_close_their_sender_and_affect_no_other_client(
    server: Server, kind: str, count: int
) -> None:
    seed = randrange(1 << 31)
    with server.unaffected(settle_seconds=20):
        for number in range(count):
            rng = Random(f"{seed} {number}")
            with RawClient(server.port).open_websocket("1", str(number)) as client:
                sent = MESSAGES[kind](rng)
                client.send(sent)
                if rng.random() < 0.2:
                    client.reset()
                    continue
                codes = [
                    struct.unpack("!H", answer.payload[:2])[0]
                    for answer in frames(client.end())
                    if answer.opcode == CLOSE and answer.payload
                ]
                # A valid close frame is answered with its own code.
                assert all(code in {1002, 1007, 1009} or struct.pack("!H", code) in sent for code in codes), (
                    seed,
                    number,
                    codes,
                )
