"""Connections that receive and discard: `python -m bench.programs.listen_clients COUNT postgres|redis CHANNEL`."""

import os
import select
import socket
import sys

import psycopg
import redis


def postgres(channel: str) -> tuple[object, socket.socket]:
    """Open a session that LISTENs; return it and its socket."""
    connection = psycopg.connect("", autocommit=True)
    connection.execute(f"LISTEN {channel}".encode())
    return connection, socket.socket(fileno=os.dup(connection.fileno()))


def subscriber(channel: str) -> tuple[object, socket.socket]:
    """Subscribe to a channel of Redis; return the subscription and its socket."""
    pubsub = redis.Redis.from_url(os.environ["REDIS_URL"]).pubsub()  # type: ignore[no-untyped-call]
    pubsub.subscribe(channel)
    pubsub.get_message(timeout=5)
    return pubsub, pubsub.connection._sock  # noqa: SLF001 - read as bytes, without parsing


def main(count: int, where: str, channel: str) -> None:
    """Receive until the process is killed."""
    connect = {"postgres": postgres, "redis": subscriber}[where]
    connections = [connect(channel) for _ in range(count)]
    sockets = {each.fileno(): each for _, each in connections}
    poll = select.epoll()
    for file, each in sockets.items():
        each.setblocking(False)
        poll.register(file, select.EPOLLIN)
    sys.stdout.write("receiving\n")
    while True:
        for file, _ in poll.poll():
            if not sockets[file].recv(1 << 16):
                sys.exit("a connection was closed")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
