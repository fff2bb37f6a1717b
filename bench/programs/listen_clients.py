"""Connections that receive and discard: `python -m bench.programs.listen_clients COUNT postgres|redis CHANNEL`."""

import os
import select
import socket
import sys

import psycopg
import redis


def postgres(channel: str) -> tuple[object, socket.socket]:
    """A session that LISTENs; what holds it, and its socket."""
    connection = psycopg.connect("", autocommit=True)
    connection.execute(f"LISTEN {channel}".encode())
    return connection, socket.socket(fileno=os.dup(connection.fileno()))


def subscriber(channel: str) -> tuple[object, socket.socket]:
    """A subscriber of Redis; what holds it, and its socket."""
    pubsub = redis.Redis.from_url(os.environ["REDIS_URL"]).pubsub()  # type: ignore[no-untyped-call]
    pubsub.subscribe(channel)
    pubsub.get_message(timeout=5)
    return pubsub, pubsub.connection._sock  # noqa: SLF001 - only its bytes are wanted


def main(count: int, where: str, channel: str) -> None:
    """Reads until it is ended."""
    connect = {"postgres": postgres, "redis": subscriber}[where]
    ears = [connect(channel) for _ in range(count)]
    by_file = {ear.fileno(): ear for _, ear in ears}
    poll = select.epoll()
    for file, ear in by_file.items():
        ear.setblocking(False)
        poll.register(file, select.EPOLLIN)
    sys.stdout.write("hearing\n")
    while True:
        for file, _ in poll.poll():
            if not by_file[file].recv(1 << 16):
                sys.exit("a connection was closed")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
