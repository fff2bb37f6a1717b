"""LISTENs and posts to nchan: `python -m bench.peers.nchan_publisher PORT`; the database is in PGHOST and its like."""

import json
import socket
import sys
from collections.abc import Iterable

import psycopg

_POST = (
    "POST /publish/{match} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
)
_ANSWER = b"HTTP/1.1 2"


def request(payload: str) -> bytes:
    """What is posted for a notification."""
    body = payload.encode()
    return _POST.format(match=json.loads(payload)["match_id"], size=len(body)).encode() + body


def post(nginx: socket.socket, payloads: Iterable[str]) -> None:
    """Posts some in one write, and waits for as many answers; one connection keeps their order."""
    requests = [request(payload) for payload in payloads]
    nginx.sendall(b"".join(requests))
    answers = b""
    while answers.count(_ANSWER) < len(requests):
        answers += nginx.recv(1 << 16)


def main(port: int) -> None:
    """Posts until it is ended."""
    nginx = socket.create_connection(("127.0.0.1", port))
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute("LISTEN match_change")
        sys.stdout.write("listening\n")
        while True:
            post(nginx, [note.payload for note in connection.notifies(timeout=60, stop_after=1)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
