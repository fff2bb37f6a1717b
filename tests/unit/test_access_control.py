"""Who may come in."""

from collections.abc import Mapping
from contextlib import ExitStack

import jwt
import pytest
from starlette.requests import HTTPConnection

from app.web.access_control import AccessControl, ConnectionLimits, Rejected
from app.web.tokens import Tokens

SECRET = "a secret that is long enough for HS256"
ROOMY = ConnectionLimits(100, None)


def connection(headers: Mapping[str, str] | None = None, query: str = "", address: str = "192.0.2.1") -> HTTPConnection:
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return HTTPConnection(
        {"type": "http", "headers": pairs, "query_string": query.encode(), "client": (address, 1234), "path": "/"}
    )


def refused(admission: AccessControl, given: HTTPConnection, match: str = "1") -> Rejected:
    with pytest.raises(Rejected) as caught, admission.admit(given, match):
        pass
    return caught.value


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://live.example.com", "live.example.com", True),
        ("https://live.example.com:8443", "live.example.com:8443", True),
        ("HTTP://Live.Example.com", "live.example.COM", True),
        ("http://live.example.com", "live.example.com:8000", False),
        ("http://evil.example.com", "live.example.com", False),
        ("http://live.example.com.evil.example", "live.example.com", False),
        ("https://named.example", "live.example.com", True),
        ("http://named.example", "live.example.com", False),
        ("null", "live.example.com", False),
        ("", "live.example.com", False),
        ("live.example.com", "live.example.com", False),
        ("http://", "", False),
        ("null", "", False),
    ],
)
def test_pages_of_the_same_host_and_of_named_origins_may_connect(origin: str, host: str, allowed: bool) -> None:
    assert AccessControl(None, ["https://named.example"], ROOMY).allows_origin(origin, host) is allowed


def test_a_star_lets_every_page_in() -> None:
    admission = AccessControl(None, ["*"], ROOMY)
    assert admission.allows_origin("null", "live.example.com")
    assert admission.allows_origin("http://anybody.example", "")


def test_a_foreign_page_is_refused_and_a_program_is_not_asked_for_an_origin(caplog: pytest.LogCaptureFixture) -> None:
    admission = AccessControl(None, [], ROOMY)
    with admission.admit(connection({"Host": "live.example.com"}), "1"):
        pass
    for _ in range(3):
        assert (
            refused(admission, connection({"Host": "live.example.com", "Origin": "http://evil.example"})).status == 403
        )
    assert caplog.text.count("http://evil.example") == 1, "named once"


def test_refused_origins_are_named_in_the_log_only_so_often(caplog: pytest.LogCaptureFixture) -> None:
    admission = AccessControl(None, [], ROOMY)
    for number in range(100):
        refused(admission, connection({"Host": "a", "Origin": f"http://{number}.example"}))
    assert len(caplog.records) == 20


def test_a_token_comes_in_the_header_or_in_the_query_and_the_header_is_over_it() -> None:
    admission = AccessControl(Tokens(SECRET, "HS256"), [], ROOMY)
    token = jwt.encode({"matches": [1], "exp": 4_000_000_000}, SECRET)
    for given in (
        connection({"Authorization": f"Bearer {token}"}),
        connection({"Authorization": f"bearer  {token} "}),
        connection(query=f"token={token}"),
        connection({"Authorization": f"Bearer {token}"}, query="token=wrong"),
        connection({"Authorization": "Basic eDp5"}, query=f"token={token}"),
    ):
        with admission.admit(given, "1") as expires:
            assert expires == 4_000_000_000
    assert refused(admission, connection({"Authorization": "Bearer wrong"}, query=f"token={token}")).status == 401


def test_without_a_good_token_it_is_401_and_with_one_for_another_match_403() -> None:
    admission = AccessControl(Tokens(SECRET, "HS256"), [], ROOMY)
    missing = refused(admission, connection())
    assert missing.status == 401
    assert missing.headers == {"www-authenticate": "Bearer"}
    token = jwt.encode({"matches": [1]}, SECRET)
    assert refused(admission, connection(query=f"token={token}"), "2").status == 403


def test_a_worker_takes_so_many_clients_and_a_place_that_gets_free_is_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = AccessControl(None, [], ConnectionLimits(2, None))
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(admission.admit(connection(address=f"192.0.2.{number}"), "1"))
        for _ in range(3):
            full = refused(admission, connection())
            assert full.status == 503
            assert full.headers
            assert 1 <= int(full.headers["retry-after"]) <= 10
    assert caplog.text.count("is full") == 1, "said once"
    with admission.admit(connection(), "1"):
        pass


def test_an_address_has_so_many_places_and_others_have_theirs() -> None:
    admission = AccessControl(None, [], ConnectionLimits(100, 2))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(admission.admit(connection(), "1"))
        assert refused(admission, connection()).status == 503
        stack.enter_context(admission.admit(connection(address="192.0.2.9"), "1"))
    with admission.admit(connection(), "1"):
        pass


def test_a_refused_client_takes_no_place() -> None:
    admission = AccessControl(Tokens(SECRET, "HS256"), [], ConnectionLimits(1, 1))
    for _ in range(5):
        assert refused(admission, connection()).status == 401
    with admission.admit(connection(query=f"token={jwt.encode({}, SECRET)}"), "1"):
        pass


def test_an_operator_needs_a_token_that_says_so_where_tokens_are_needed() -> None:
    assert AccessControl(None, [], ROOMY).admit_operator(connection()) is None
    admission = AccessControl(Tokens(SECRET, "HS256"), [], ROOMY)
    claims: list[dict[str, object]] = [{}, {"operator": False}, {"operator": "true"}, {"operator": 1}, {"matches": [1]}]
    for token in (jwt.encode(claim, SECRET) for claim in claims):
        with pytest.raises(Rejected) as caught:
            admission.admit_operator(connection(query=f"token={token}"))
        assert caught.value.status == 401
    token = jwt.encode({"operator": True, "exp": 4_000_000_000}, SECRET)
    assert admission.admit_operator(connection({"Authorization": f"Bearer {token}"})) == 4_000_000_000


def test_a_foreign_page_does_not_see_what_operators_see() -> None:
    with pytest.raises(Rejected) as caught:
        AccessControl(None, [], ROOMY).admit_operator(connection({"Host": "a", "Origin": "http://evil.example"}))
    assert caught.value.status == 403


def test_an_operator_takes_no_clients_place() -> None:
    admission = AccessControl(None, [], ConnectionLimits(1, 1))
    with admission.admit(connection(), "1"):
        admission.admit_operator(connection())
