"""How results are printed, and the checks of servers that the tests don't have."""

import json

import pytest

from listener.verify import redis_checks as redis
from listener.verify.output import as_json, as_table, is_ok
from listener.verify.result import Check, CheckStatus, failed, passed, warned

CHECKS = [passed("a", "well"), warned("b", "hm", "look"), warned("long", "hm", "look"), failed("c", "ill", "mend")]


def test_a_remedy_is_printed_once_below_the_checks_that_share_it_and_the_last_line_counts() -> None:
    assert as_table(CHECKS).splitlines() == [
        "✓ a     well",
        "⚠ b     hm",
        "⚠ long  hm",
        "        → look",
        "✗ c     ill",
        "        → mend",
        "",
        "1 ✓  2 ⚠  1 ✗",
    ]


def test_the_json_has_every_check() -> None:
    printed = json.loads(as_json(CHECKS))
    assert printed["ok"] is False
    assert printed["checks"][0] == {"check": "a", "status": "ok", "text": "well", "remedy": None}
    assert [check["status"] for check in printed["checks"]] == ["ok", "warning", "warning", "failed"]


def test_a_warning_is_no_failure() -> None:
    assert is_ok(CHECKS[:3])
    assert not is_ok(CHECKS)


def test_control_characters_in_a_servers_names_are_replaced() -> None:
    table = as_table([Check("\x1b[2Jx", CheckStatus.FAILED, "on \r\n\x07\u202ename", "\x9b")])
    assert table.splitlines()[:2] == ["✗ ?[2Jx  on ????name", "         → ?"]


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"redis_version": "6.2.14"}, CheckStatus.FAILED),
        ({"redis_version": "7.0.0"}, CheckStatus.OK),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, CheckStatus.OK),
        ({"redis_version": "10.0.0"}, CheckStatus.OK),
    ],
)
def test_an_old_redis_fails(info: redis.Info, status: CheckStatus) -> None:
    assert redis.version(info).status is status


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"redis_mode": "cluster", "role": "master"}, "REDIS_URL leads to a node of a Redis Cluster"),
        ({"server_mode": "sentinel"}, "REDIS_URL leads to a Redis Sentinel"),
        ({"redis_mode": "standalone", "role": "slave"}, "REDIS_URL leads to a read-only replica"),
    ],
)
def test_a_redis_that_is_not_a_single_primary_fails(info: redis.Info, text: str) -> None:
    check = redis.role(info, is_cluster=False)
    assert (check.status, check.text) == (CheckStatus.FAILED, text)
