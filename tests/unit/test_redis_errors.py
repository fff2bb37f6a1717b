"""What Redis's errors are called, and which of them mean that another server is wanted."""

import pytest
from redis import exceptions

from notifymux.redis_errors import WrongServerError, check_server, fault, is_wrong_server, lacks_hello

PIPELINE = 'Command # 2 (HSET key text {"id":"1-1"}) of pipeline caused error: '
IN_SCRIPT = " script: c0ffee00c0ffee00, on @user_script:47."
OOM = "command not allowed when used memory > 'maxmemory'."
MISCONF = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."


@pytest.mark.parametrize(
    "said",
    [OOM, MISCONF, "NOREPLICAS Not enough good replicas to write.", "BUSY Redis is busy running a script."],
)
def test_one_state_of_a_server_is_one_text_and_has_a_remedy_whichever_command_met_it(said: str) -> None:
    plain = fault(exceptions.ResponseError(said))
    assert plain.remedy
    assert fault(exceptions.ResponseError(PIPELINE + said)) == plain
    assert fault(exceptions.ResponseError(said + IN_SCRIPT)) == plain


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ResponseError(PIPELINE + OOM),
        exceptions.ResponseError("unknown command 'EVALSHA', with args beginning with: 'sha' '1' '{\"id\":\"1-1\"}'"),
    ],
)
def test_no_text_has_what_redis_quotes_of_a_command(error: Exception) -> None:
    assert '"id"' not in str(fault(error))


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (exceptions.ReadOnlyError("You can't write against a read only replica."), "replica"),
        (exceptions.MasterDownError("Link with MASTER is down"), "replica"),
        (exceptions.ClusterDownError("Hash slot not served"), "Cluster is down"),
        (exceptions.MovedError("1 127.0.0.1:7000"), "Cluster"),
        (exceptions.AskError("1 127.0.0.1:7000"), "Cluster"),
    ],
)
def test_a_wrong_server_is_told_from_a_sick_one(error: Exception, word: str) -> None:
    assert is_wrong_server(error)
    assert word in fault(error).what
    for sick in (OOM, MISCONF, "NOREPLICAS Not enough", "BUSY Redis is busy", "LOADING Redis is loading"):
        assert not is_wrong_server(exceptions.ResponseError(sick))


@pytest.mark.parametrize(
    "error",
    [
        exceptions.NoPermissionError("User x has no permissions to run the 'xadd' command"),
        exceptions.ResponseError("ACL failure in script: User x has no permissions to run the 'xadd' command"),
        exceptions.ResponseError("The user executing the script can't run this command or subcommand"),
    ],
)
def test_a_right_that_is_missing_is_named_also_in_a_script(error: Exception) -> None:
    assert "forbids" in fault(error).what


@pytest.mark.parametrize("is_cluster", [False, True])
@pytest.mark.parametrize("mode", ["standalone", "cluster"])
def test_a_clusters_node_is_the_right_server_only_where_one_is_wanted(mode: str, *, is_cluster: bool) -> None:
    """One that stands alone is no Cluster, but nobody finds it by asking a Cluster's nodes."""
    hello = {b"mode": mode.encode(), b"role": b"master"}
    if mode == "cluster" and not is_cluster:
        with pytest.raises(WrongServerError, match=r"redis\+cluster://"):
            check_server(hello, is_cluster=is_cluster)
    else:
        check_server(hello, is_cluster=is_cluster)


@pytest.mark.parametrize(
    ("hello", "word"),
    [
        ({b"mode": b"sentinel"}, "Sentinel"),
        ({b"mode": b"cluster", b"role": b"master"}, "Cluster"),
        ({b"mode": b"standalone", b"role": b"replica"}, "replica"),
        ({b"mode": b"standalone", b"role": b"slave"}, "replica"),
    ],
)
def test_a_greeting_that_is_not_a_primarys_is_refused_by_name(hello: dict[bytes, bytes], word: str) -> None:
    with pytest.raises(WrongServerError, match=word):
        check_server(hello)


def test_a_primarys_greeting_and_one_that_says_nothing_pass() -> None:
    check_server({b"mode": b"standalone", b"role": b"master"})
    check_server({})


def test_a_server_without_hello_is_recognised() -> None:
    assert lacks_hello(exceptions.ResponseError("unknown command 'HELLO', with args beginning with: '3'"))
    assert lacks_hello(exceptions.ResponseError("NOPROTO unsupported protocol version"))
    assert not lacks_hello(exceptions.ResponseError(OOM))
