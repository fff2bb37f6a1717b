"""A name server that can fall silent, and programs whose names it resolves."""

import random
import socket
import struct
import threading
from pathlib import Path
from typing import Self

from tests.support.wrapped import with_mounts

NAME = "server.notifymux.test"  # every such name is 127.0.0.1
# As in a pod of Kubernetes: while nobody answers, each name that is tried takes 10 s.
_RESOLV_CONF = """\
nameserver {address}
search default.svc.cluster.test svc.cluster.test cluster.test
options ndots:5
"""


class SilentResolver:
    """Answers on an address of loopback of its own, until `fall_silent`."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.53"
        self._resolv_conf = folder / "resolv.conf"
        self._resolv_conf.write_text(_RESOLV_CONF.format(address=self.address))
        # Port 53, which is root's: resolv.conf knows no other.
        self.wrapper = with_mounts('mount --bind "$1" /etc/resolv.conf', self._resolv_conf)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, 53))
        self._socket.settimeout(0.1)
        self._silent = self._closed = False
        self.asked = 0  # while it was silent
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def fall_silent(self) -> None:
        """From now on nobody gets an answer."""
        self._silent = True

    def answer(self) -> None:
        """From now on everybody does."""
        self._silent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while not self._closed:
            try:
                query, client = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            if self._silent:
                self.asked += 1
            else:
                self._socket.sendto(_answer(query), client)


def _answer(query: bytes) -> bytes:
    """To one question (RFC 1035, 4.1): an address for NAME, no such name for any other."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    question = query[12 : at + 5]
    known = ".".join(labels).lower() == NAME
    found = known and kind == 1
    record = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 0, 4, socket.inet_aton("127.0.0.1")) if found else b""
    flags = 0x8180 if known else 0x8183
    return query[:2] + struct.pack("!5H", flags, 1, int(found), 0, 0) + question + record
