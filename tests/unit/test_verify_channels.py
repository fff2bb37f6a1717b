"""What `verify` says of the channels on which it notifies nothing."""

import json

from app.core.heartbeat import RegistryEntry
from listener.verify.end_to_end import listening


def listener(pod: str, channels: list[str] | None, age: float = 0.5, state: str = "running") -> RegistryEntry:
    listed = {} if channels is None else {"channels": json.dumps(channels)}
    return RegistryEntry("", {"pod": pod, "pid": "1", "state": state, **listed}, age)


def statuses(channels: list[str], listeners: list[RegistryEntry], *, is_same_setup: bool = False) -> dict[str, str]:
    checks = listening(channels, listeners, is_same_setup=is_same_setup)
    return {check.name.removeprefix("channel "): check.status.value for check in checks}


def test_a_channel_that_a_living_listener_names_is_listened_on_and_another_is_not() -> None:
    registered = [listener("a", ["x"]), listener("b", ["ü, 1"]), listener("c", ["gone"], age=9.0)]
    registered.append(listener("d", ["ended"], state="stopped"))
    assert statuses(["x", "ü, 1", "gone", "ended"], registered) == {
        "x": "ok",
        "ü, 1": "ok",
        "gone": "failed",
        "ended": "failed",
    }


def test_of_an_older_listener_which_does_not_name_its_channels_its_canary_tells_whether_they_are_the_same() -> None:
    older = [listener("a", None)]
    assert statuses(["x"], older, is_same_setup=True) == {"x": "ok"}
    assert statuses(["x"], older) == {"x": "warning"}
    assert statuses(["x", "y"], [*older, listener("b", ["y"])]) == {"x": "warning", "y": "ok"}


def test_a_registry_that_others_have_written_to_is_no_reason_to_fail_but_for_the_channel() -> None:
    spoilt = [RegistryEntry("", {"state": "running", "channels": text}, 0.5) for text in ("{", "7", '{"a": 1}', "[1]")]
    assert statuses(["x"], spoilt) == {"x": "failed"}
