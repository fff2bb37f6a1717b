"""Events that no client hears are counted by channel and cause, and the first of each is logged."""

import msgspec
import pytest

from app.broadcast.hub import Hub
from app.broadcast.unroutable import OTHER_CHANNELS, Cause
from notifymux.event import Event, EventId, payload_json
from tests.support.loops import async_test
from tests.unit.test_hub import World

NESTED = b"[" * 3000 + b"]" * 3000


def deliver(hub: Hub, payload: bytes, channel: str = "match_change") -> None:
    hub.deliver([Event(channel, msgspec.Raw(payload_json(payload)), "7-1")])


def counted(hub: Hub) -> dict[tuple[str, str], int]:
    return {(each.channel, each.cause): each.events for each in hub.unroutable.report()}


@pytest.mark.parametrize(
    ("payload", "cause", "said"),
    [
        (b"", Cause.EMPTY, "empty or null"),
        (b"null", Cause.EMPTY, "empty or null"),
        (b"match 7 has changed", Cause.TEXT, "text and not a JSON object (JSON is malformed"),
        (b"{'match_id': 1}", Cause.TEXT, "JSON is malformed"),
        (b'{"match_id": 1,}', Cause.TEXT, "trailing comma"),
        (b'{"match_id": NaN}', Cause.TEXT, "invalid character (byte 13)"),
        (b'{"match_id": 1, "name": "\\ud800"}', Cause.TEXT, "half of a surrogate pair"),
        (NESTED, Cause.TEXT, "recursion"),
        (b'[{"match_id": 1}]', Cause.NOT_AN_OBJECT, "not an object"),
        (b"7", Cause.NOT_AN_OBJECT, "not an object"),
        (b'{"id": 1}', Cause.NO_KEY, "no key 'match_id' (ROUTING_KEY)"),
        (b'{"match_id": null}', Cause.NO_KEY, "or null there"),
        (b'{"match_id": true}', Cause.NO_ID, "can't be a match id"),
        (b'{"match_id": ""}', Cause.NO_ID, "can't be a match id"),
    ],
)
def test_an_event_that_no_client_hears_is_counted_by_its_cause_and_said_once(
    payload: bytes, cause: Cause, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    @async_test
    async def counts() -> None:
        hub = World().hub
        for _ in range(3):
            deliver(hub, payload)
        assert counted(hub) == {("match_change", cause): 3}

    counts()
    [message] = caplog.messages
    assert "'match_change'" in message
    assert said in message


@async_test
async def test_what_is_for_no_client_by_design_and_what_is_routed_is_not_counted() -> None:
    hub = World().hub
    deliver(hub, b'{"canary": "x"}', "pg_notify_mux")
    deliver(hub, b'{"verify": "notifymux-1"}')
    deliver(hub, b'{"match_id": 99}')
    hub.start(EventId(7, 0), [Event("match_change", msgspec.Raw(b"[]"), "7-1")])
    assert counted(hub) == {}


def test_any_number_of_channels_takes_a_bounded_number_of_counters_and_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @async_test
    async def floods() -> None:
        hub = World().hub
        deliver(hub, b"", "x" * 1_000_000)
        for number in range(5000):
            deliver(hub, b"", f"made-up-{number}")
        assert len(counted(hub)) == 21
        assert counted(hub)[OTHER_CHANNELS, Cause.EMPTY] == 4981

    floods()
    assert len(caplog.messages) == 21
    assert max(map(len, caplog.messages)) < 300
