"""Two living pods of one name: two checkouts on one machine, host networking, fixed host names."""

from contextlib import closing
from typing import Any

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener
from tests.host_faults.conftest import StartWrappedApp
from tests.support.numbered import MATCH, Numbered
from tests.support.programs import Listener
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

NAMED = {"POD_NAME": "the-same"}


def epochs(*listeners: Listener) -> set[str]:
    """Those that listeners say they count in."""
    words = [line.split() for listener in listeners for line in listener.lines]
    begun = {word[word.index("epoch") + 1] for word in words if "begins" in word}
    aligned = {word[word.index("at") + 1].partition("-")[0] for word in words if "aligned" in word}
    return begun | aligned


def roles(place: RedisPlace) -> list[str]:
    """What the listeners of this name do, by the registry."""
    with closing(place.client()) as client:
        keys = client.scan_iter(match=f"{{{place.namespace}}}:listener:the-same:*")
        found: list[Any] = [client.hget(key, "role") for key in keys]
        return [(role or b"").decode() for role in found]


def test_a_second_living_listener_of_the_same_pod_name_joins_the_count(
    settings: dict[str, str],
    redis_place: RedisPlace,
    events: Numbered,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    first = start_listener(settings | NAMED).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(5)
        events.heard_by(client)
        wait_until(lambda: roles(redis_place) == ["primary"])
        first.freeze()  # for a moment, in which the newcomer looks around
        second = start_listener(settings | NAMED)
        wait_until(lambda: len(roles(redis_place)) == 2 and "unconnected" not in roles(redis_place))
        first.thaw()
        second.wait_until_aligned()
        events.commit(5)
        events.heard_by(client)
        first.kill()  # and the second takes over, as any other would
        events.commit(5)
        events.heard_by(client)
    assert len(epochs(first, second)) == 1, f"{first.log}\n---\n{second.log}"


def test_listeners_of_the_same_pod_name_that_are_restarted_in_turn_are_no_gap(
    settings: dict[str, str], events: Numbered, start_listener: StartListener, start_app: StartApp
) -> None:
    app = start_app(settings)
    listeners = [start_listener(settings | NAMED).wait_until_aligned()]
    app.wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        for number in range(3):
            listeners.append(start_listener(settings | NAMED).wait_until_aligned())
            assert listeners[number].stop() == 0
            events.commit(5)
            events.heard_by(client)
    assert len(epochs(*listeners)) == 1, "\n---\n".join(listener.log for listener in listeners)


def test_a_listener_that_was_killed_and_is_alone_begins_again_within_seconds(
    settings: dict[str, str], start_listener: StartListener
) -> None:
    """An earlier self is one whose heartbeat has stopped: what it left in Redis keeps nobody waiting for long."""
    start_listener(settings | NAMED).wait_until_aligned().kill()
    start_listener(settings | NAMED).wait_until_aligned(within=8)


def test_workers_of_the_same_pod_name_and_process_id_are_told_apart(
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_wrapped_app: StartWrappedApp,
) -> None:
    """Containers have equal process ids, for each counts its own from 1."""
    start_listener(settings).wait_until_aligned()
    own_ids = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    apps = [start_wrapped_app(own_ids, settings | NAMED).wait_until_ready() for _ in range(2)]
    pids = [app.get("/api/status")[1]["worker"]["pid"] for app in apps]
    assert pids[0] == pids[1], "else this tests nothing"
    with apps[0].client(MATCH) as client:
        client.wait_for_initial_load()
        for app in apps:
            wait_until(
                lambda app=app: sorted(row["clients"] for row in app.get("/api/status")[1]["workers"]) == [0, 1],  # type: ignore[misc]
                10,
                lambda app=app: str(app.get("/api/status")[1]["workers"]),  # type: ignore[misc]
            )
    with closing(redis_place.client()) as client_of_redis:
        assert len(list(client_of_redis.scan_iter(match=f"{{{redis_place.namespace}}}:worker:*"))) == 2
    for app in apps:
        app.kill()  # SIGTERM does not reach the program through unshare
