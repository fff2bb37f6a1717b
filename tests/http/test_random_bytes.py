"""Random bytes at every door. A failure names its seed and the string's number."""

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


def noise(rng: Random, most: int = 300) -> bytes:
    return rng.randbytes(rng.randrange(most))


def text(rng: Random) -> bytes:
    """What may stand in a path: mostly percent-encoded."""
    return b"".join(b"%%%02x" % byte if rng.random() < 0.8 else bytes([byte]) for byte in noise(rng, 60) if byte > 32)


def tokens(rng: Random) -> bytes:
    """HTTP's own words in any order."""
    return b"".join(rng.choice(_TOKENS) if rng.random() < 0.9 else noise(rng, 9) for _ in range(rng.randrange(20)))


def mutated(rng: Random, request: bytes) -> bytes:
    """A good request in which some bytes are others, are missing or stand twice."""
    changed = bytearray(request)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(changed)


def get(path: bytes, headers: bytes = b"Host: x\r\n") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + headers + b"\r\n"


def some_frame(rng: Random) -> bytes:
    """A frame that may be good, and mostly is not."""
    opcode, flags = rng.choice([TEXT, CLOSE, PONG, rng.randrange(16)]), rng.choice([0, 0, 0, 0x10, 0x40])
    payload = noise(rng, 5000 if rng.random() < 0.1 else 130)
    said = frame(opcode, payload, fin=rng.random() < 0.8, masked=rng.random() < 0.95, flags=flags)
    return said if rng.random() < 0.8 else mutated(rng, said)


REQUESTS: dict[str, Draw] = {
    "anything": noise,
    "HTTP's words": tokens,
    "a path": lambda rng: get(b"/" + text(rng)),
    "a file": lambda rng: get(b"/static/" + text(rng)),
    "a file's headers": lambda rng: get(b"/static/demo.css", b"Range: bytes=" + tokens(rng) + b"\r\nAccept-Encoding: "),
    "a body": lambda rng: b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + noise(rng),
    "what follows a request": lambda rng: get(b"/healthz") + noise(rng),
    "a page": lambda rng: mutated(rng, get(b"/demo")),
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
    "count", [25, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)


@strings
@pytest.mark.parametrize("door", REQUESTS)
def test_random_bytes_for_a_request_are_refused_and_harm_nobody(house: Server, door: str, count: int) -> None:
    seed = randrange(1 << 31)
    with house.unharmed(settles_within=20):
        for number in range(count):
            rng = Random(f"{seed} {number}")
            with RawClient(house.port) as stranger:
                stranger.say(REQUESTS[door](rng))
                if rng.random() < 0.2:
                    stranger.reset()
                    continue
                answer = stranger.finish()
                assert not any(status >= 500 for status in statuses(answer)), (seed, number, answer)


@strings
@pytest.mark.parametrize("door", MESSAGES)
def test_random_bytes_for_a_message_close_their_sender_and_harm_nobody(house: Server, door: str, count: int) -> None:
    seed = randrange(1 << 31)
    with house.unharmed(settles_within=20):
        for number in range(count):
            rng = Random(f"{seed} {number}")
            with RawClient(house.port).enter("1", str(number)) as stranger:
                said = MESSAGES[door](rng)
                stranger.say(said)
                if rng.random() < 0.2:
                    stranger.reset()
                    continue
                codes = [
                    struct.unpack("!H", got.payload[:2])[0]
                    for got in frames(stranger.finish())
                    if got.opcode == CLOSE and got.payload
                ]
                # Its own close frame is answered with its own code.
                assert all(code in {1002, 1007, 1009} or struct.pack("!H", code) in said for code in codes), (
                    seed,
                    number,
                    codes,
                )
