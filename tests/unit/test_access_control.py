"""Which connections are accepted."""

from collections.abc import Mapping
from contextlib import ExitStack

import jwt
import pytest
from starlette.requests import HTTPConnection

from app.web.access_control import AccessControl, Rejected
from app.web.client_address import client_address
from app.web.tokens import Tokens

SECRET = "a secret that is long enough for HS256"
MAX_CLIENTS = 100


def connection(headers: Mapping[str, str] | None = None, query: str = "", address: str = "192.0.2.1") -> HTTPConnection:
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return HTTPConnection(
        {"type": "http", "headers": pairs, "query_string": query.encode(), "client": (address, 1234), "path": "/"}
    )


def rejected(access: AccessControl, given: HTTPConnection, match: str = "1") -> Rejected:
    with pytest.raises(Rejected) as caught, access.authorize_client(given, match):
        pass
    return caught.value


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://live.example.com", "live.example.com", True),
        ("https://live.example.com:8443", "live.example.com:8443", True),
        ("HTTP://Live.Example.com", "live.example.COM", True),
        ("http://live.example.com", "live.example.com:8000", False),
        ("http://live.example.com", "live.example.com:80", True),
        ("https://live.example.com", "live.example.com:443", True),
        ("https://live.example.com:443", "live.example.com", True),
        ("http://[2001:db8::80]", "[2001:db8::80]:80", True),
        ("http://live.example.com", "live.example.com:443", False),
        ("https://live.example.com", "live.example.com:80", False),
        ("http://live.example.com:8080", "live.example.com", False),
        ("http://live.example.com:80", "live.example.com:8080", False),
        ("http://[2001:db8::80]", "[2001:db8:]", False),
        ("app://live.example.com", "live.example.com:80", False),
        ("https://port.example", "live.example.com", True),
        ("https://PORT.example:443", "live.example.com", True),
        ("http://port.example", "live.example.com", False),
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
    access = AccessControl(None, ["https://named.example", "https://port.example:443"], MAX_CLIENTS)
    assert access.allows_origin(origin, host) is allowed


def test_a_star_allows_every_page() -> None:
    access = AccessControl(None, ["*"], MAX_CLIENTS)
    assert access.allows_origin("null", "live.example.com")
    assert access.allows_origin("http://any.example", "")


def test_a_page_of_another_site_is_refused_and_a_program_needs_no_origin() -> None:
    access = AccessControl(None, [], MAX_CLIENTS)
    with access.authorize_client(connection({"Host": "live.example.com"}), "1"):
        pass
    page = connection({"Host": "live.example.com", "Origin": "http://evil.example"})
    refused = rejected(access, page)
    assert refused.status_code == 403
    assert "evil" not in refused.detail, "what the client sent is in the log only"
    assert refused.details == "ALLOWED_ORIGINS does not name http://evil.example, and Host is live.example.com"


def test_a_token_is_in_the_header_or_the_query_and_the_header_takes_precedence() -> None:
    access = AccessControl(Tokens(SECRET, "HS256"), [], MAX_CLIENTS)
    token = jwt.encode({"matches": [1], "exp": 4_000_000_000}, SECRET)
    for given in (
        connection({"Authorization": f"Bearer {token}"}),
        connection({"Authorization": f"bearer  {token} "}),
        connection(query=f"token={token}"),
        connection({"Authorization": f"Bearer {token}"}, query="token=wrong"),
        connection({"Authorization": "Basic eDp5"}, query=f"token={token}"),
    ):
        with access.authorize_client(given, "1") as admission:
            assert admission.claims.expires == 4_000_000_000
    assert rejected(access, connection({"Authorization": "Bearer wrong"}, query=f"token={token}")).status_code == 401


def test_without_a_valid_token_the_status_is_401_and_with_one_for_another_match_403() -> None:
    access = AccessControl(Tokens(SECRET, "HS256"), [], MAX_CLIENTS)
    missing = rejected(access, connection())
    assert missing.status_code == 401
    assert missing.headers == {"www-authenticate": "Bearer"}
    token = jwt.encode({"matches": [1]}, SECRET)
    assert rejected(access, connection(query=f"token={token}"), "2").status_code == 403


def test_a_full_worker_refuses_clients_until_one_leaves() -> None:
    access = AccessControl(None, [], 2)
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(access.authorize_client(connection(address=f"192.0.2.{number}"), "1"))
        for _ in range(3):
            full = rejected(access, connection())
            assert full.status_code == 503
            assert full.headers
            assert 1 <= int(full.headers["retry-after"]) <= 10
    with access.authorize_client(connection(), "1"):
        pass


def test_each_address_has_a_limit_of_its_own() -> None:
    access = AccessControl(None, [], MAX_CLIENTS, 2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(access.authorize_client(connection(), "1"))
        assert rejected(access, connection()).status_code == 503
        stack.enter_context(access.authorize_client(connection(address="192.0.2.9"), "1"))
    with access.authorize_client(connection(), "1"):
        pass


def test_a_refused_client_does_not_count() -> None:
    access = AccessControl(Tokens(SECRET, "HS256"), [], 1, 1)
    for _ in range(5):
        assert rejected(access, connection()).status_code == 401
    with access.authorize_client(connection(query=f"token={jwt.encode({}, SECRET)}"), "1"):
        pass


def test_where_tokens_are_needed_an_operator_needs_one_with_the_claim() -> None:
    assert AccessControl(None, [], MAX_CLIENTS).authorize_operator(connection()) is None
    access = AccessControl(Tokens(SECRET, "HS256"), [], MAX_CLIENTS)
    claims: list[dict[str, object]] = [{}, {"operator": False}, {"operator": "true"}, {"operator": 1}, {"matches": [1]}]
    for token in (jwt.encode(claim, SECRET) for claim in claims):
        with pytest.raises(Rejected) as caught:
            access.authorize_operator(connection(query=f"token={token}"))
        assert caught.value.status_code == 401
    token = jwt.encode({"operator": True, "exp": 4_000_000_000}, SECRET)
    assert access.authorize_operator(connection({"Authorization": f"Bearer {token}"})) == 4_000_000_000


def test_a_page_of_another_site_is_refused_as_an_operator_too() -> None:
    with pytest.raises(Rejected) as caught:
        AccessControl(None, [], MAX_CLIENTS).authorize_operator(
            connection({"Host": "a", "Origin": "http://evil.example"})
        )
    assert caught.value.status_code == 403


def test_an_operator_does_not_count_as_a_client() -> None:
    access = AccessControl(None, [], 1, 1)
    with access.authorize_client(connection(), "1"):
        access.authorize_operator(connection())


def owner(access: AccessControl, claims: dict[str, str]) -> str | None:
    with access.authorize_client(connection(query=f"token={jwt.encode(claims, SECRET)}"), "1") as admission:
        return admission.claims.owner


def test_a_client_id_belongs_to_the_tokens_subject_and_without_one_to_the_token() -> None:
    access = AccessControl(Tokens(SECRET, "HS256"), [], MAX_CLIENTS)
    assert owner(access, {"sub": "ann", "jti": "1"}) == owner(access, {"sub": "ann", "jti": "2"})
    owners = [owner(access, claims) for claims in ({"sub": "ann"}, {"sub": "bob"}, {"jti": "1"}, {"jti": "2"})]
    assert len(set(owners)) == 4
    with AccessControl(None, [], MAX_CLIENTS).authorize_client(connection(), "1") as admission:
        assert admission.claims.owner is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("unix:", "", False),
        ("not an address", "not an address", True),
    ],
)
def test_one_place_is_an_ipv4_address_or_the_first_half_of_an_ipv6_address(one: str, other: str, same: bool) -> None:
    assert (client_address(one) == client_address(other)) is same
