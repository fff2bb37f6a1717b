"""Every line of a web worker has the log's format, and strangers cannot fill the log."""

import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import ExitStack

import jwt
import pytest

from tests.conftest import StartApp, StartListener
from tests.http.raw_client import SOCKET_HEADERS, RawClient, frame, statuses
from tests.support.programs import App
from tests.support.waiting import wait_until

SECRET = "a secret that is long enough for HS256"
NO_SERVERS = {"DB_HOST": "127.0.0.1", "DB_PORT": "9", "REDIS_URL": "redis://127.0.0.1:9", "USE_REDIS_NOTIFIER": "true"}
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z app (INFO|WARNING|ERROR) \S")
SOCKET = b"GET /api/matches/ws/id/1/x/?token=%b HTTP/1.1\r\n%b\r\n"

TIMES = 20


def token(**claims: object) -> bytes:
    return jwt.encode(claims, SECRET).encode()


def socket(token: bytes = b"", headers: bytes = SOCKET_HEADERS) -> bytes:
    return SOCKET % (token, headers)


# What a stranger sends, the status, the metric's label, and the line.
REFUSED = {
    "without a token": (socket(), 401, "token", "a token is needed: Authorization: Bearer, or ?token="),
    "an expired token": (socket(token(exp=1)), 401, "token", "the token has expired"),
    "a token that is none": (socket(b"x"), 401, "token", "the token is not valid (DecodeError)"),
    "another match": (socket(token(matches=[2])), 403, "match", "the token is not good for this match"),
    "another site": (
        socket(token(), b"Origin: http://a\x9b2Jb\xff\r\n" + SOCKET_HEADERS),
        403,
        "origin",
        r"pages of this origin may not connect: ALLOWED_ORIGINS does not name http://a\x9b2Jbÿ, and Host is x",
    ),
    "no HTTP": (b"\x16\x03\x01 TLS\r\n\r\n", 400, "request", "what was sent is not HTTP"),
    "an old handshake": (
        socket(token(), SOCKET_HEADERS.replace(b"13", b"8")),
        400,
        "handshake",
        "a WebSocket's handshake is not valid: invalid Sec-WebSocket-Version header: 8",
    ),
    "a frame that is not masked": (
        socket(token()),
        101,
        "frame",
        "a client's WebSocket is closed with 1002: incorrect masking",
    ),
}


def started(start_app: StartApp, more: Mapping[str, str]) -> App:
    app = start_app(NO_SERVERS | {"WS_JWT_SECRET": SECRET, **more})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    return app


def refuse_often(app: App) -> None:
    for sent, status, _, _ in REFUSED.values():
        for _ in range(TIMES):
            with RawClient(app.port) as client:
                client.send(sent)
                if status == 101:
                    head, _ = client.read_until(b"\r\n\r\n")
                    assert statuses(head) == [status]
                    client.send(frame(1, b"x", masked=False)).read_all()
                else:
                    assert statuses(client.read_all()) == [status]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_line_of_a_worker_that_strangers_try_and_that_ends_has_the_format(
    start_app: StartApp, log_format: str
) -> None:
    app = started(start_app, {"LOG_FORMAT": log_format})
    refuse_often(app)
    assert app.stop() == 0
    for line in app.lines:
        if log_format == "text":
            assert TEXT_LINE.match(line), line
        else:
            assert set(json.loads(line)) == {"time", "program", "level", "logger", "message"}
    assert "without completing handshake" not in app.log
    assert "Error while closing socket" not in app.log


def test_strangers_are_counted_by_cause_and_logged_once_a_minute_for_each_reason(start_app: StartApp) -> None:
    app = started(start_app, {})
    refuse_often(app)
    assert [line.partition(" refused: ")[2] for line in app.lines if " refused: " in line] == [
        line for _, _, _, line in REFUSED.values()
    ]
    causes = [cause for _, _, cause, _ in REFUSED.values()]
    expected = {f'notifymux_refused_total{{cause="{cause}"}} {TIMES * causes.count(cause)}.0' for cause in causes}
    operator = token(operator=True).decode()
    wait_until(lambda: expected <= set(app.get(f"/metrics?token={operator}")[1].decode().splitlines()))


def test_gunicorns_lines_have_the_log_level_too(start_app: StartApp) -> None:
    app = started(start_app, {"LOG_LEVEL": "error"})
    os.kill(app.pid, signal.SIGTTIN)  # "Handling signal: ttin", and one more worker
    with app.client(1, "first", f"?token={token().decode()}") as first:
        app.client_of_another_worker({first.worker}, query=f"?token={token().decode()}").close()  # it serves
    assert app.stop() == 0
    assert app.lines == []


def test_snapshots_that_fail_for_what_strangers_ask_are_one_bounded_line_without_terminal_escapes(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"SNAPSHOT_QUERY": "SELECT to_json(%(match_id)s::uuid)"}).wait_until_ready()
    with ExitStack() as stack:
        for match in (*(f"\x1b[31m{number}\x9b2J\r" for number in range(TIMES)), "x" * 5000):
            client = stack.enter_context(app.client(match))
            assert client.wait_for_initial_load()["error"]
    [line] = [line for line in app.lines if "snapshot of match" in line]
    assert r"the snapshot of match \x1b[31m0\x9b2J\r failed: invalid input syntax for type uuid" in line
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", app.log)
    assert max(map(len, app.lines)) < 1000
