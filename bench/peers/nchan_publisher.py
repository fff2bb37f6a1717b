"""Posts notifications to nchan: `python -m bench.peers.nchan_publisher PORT`.

The database is in PGHOST and the other variables of libpq.
"""

import json
import socket
import sys
from collections.abc import Iterable

import psycopg

_POST = (
    "POST /publish/{match} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
)
_RESPONSE = b"HTTP/1.1 2"


def request(payload: str) -> bytes:
    """Return the request for a notification."""
    body = payload.encode()
    return _POST.format(match=json.loads(payload)["match_id"], size=len(body)).encode() + body


def post(nginx: socket.socket, payloads: Iterable[str]) -> None:
    """Post several notifications in one write, and wait for all responses. One connection preserves the order."""
    requests = [request(payload) for payload in payloads]
    nginx.sendall(b"".join(requests))
    responses = b""
    while responses.count(_RESPONSE) < len(requests):
        responses += nginx.recv(1 << 16)


def main(port: int) -> None:
    """Post until the process is killed."""
    nginx = socket.create_connection(("127.0.0.1", port))
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute("LISTEN match_change")
        sys.stdout.write("listening\n")
        while True:
            post(nginx, [note.payload for note in connection.notifies(timeout=60, stop_after=1)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
