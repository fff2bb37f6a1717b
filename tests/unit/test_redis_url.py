"""REDIS_URL: every part that can be wrong is named, with how to write it, and nothing of the URL is shown."""

from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.config import load_settings
from app.core.settings_sources import SettingsError
from notifymux.redis_client import RedisAddress, async_client, describe_redis, sync_client
from notifymux.redis_url import Address, ClusterNodes, RedisUrl, RedisUrlError, Sentinels, Transport, parse_redis_url

WRONG = {
    # no URL of a Redis at all
    "localhost:6379": "it does not begin with redis://",
    "http://:s3cret@h": "it begins with none of redis://",
    "redis+sentry://:s3cret@h": "it begins with none of redis://",
    "unix+sentinel:///run/sentinel.sock/mymaster": "it begins with none of redis://",
    "sentinel://:s3cret@h:26379/mymaster": "it begins with none of redis://",
    # Sentinels and Clusters
    "redis+sentinel://:s3cret@h:26379": "after its hosts has to stand the master's name",
    "redis+sentinel://:s3cret@h:26379/my master".replace(" ", "%20"): "after its hosts has to stand the master's name",
    "redis+sentinel://a:1,b:2/mymaster/x": "its database is no number",
    "redis+sentinel://a:1,/mymaster": "it names no host",
    "redis+sentinel://a:1,b:99999/mymaster": "its port is no number from 1 to 65535",
    "redis://:s3cret@h?sentinel_password=s3cret": "sentinel_password is for Sentinels: begin with redis+sentinel://",
    "redis+cluster://a:1,b:2/1": "a Cluster has no database numbers",
    "redis+cluster://:s3cret@a?db=1": "a Cluster has no database numbers",
    "redis+cluster://a:1?sentinel_username=x": "sentinel_username is for Sentinels",
    '"redis://:s3cret@h"': "it begins with a quote, which belongs to it",
    "'redis://h'": "it begins with a quote, which belongs to it",
    # a password that is not encoded
    "redis://:s3#cret@h:6379": "there is a # in it: in user and password write %23 for #",
    "redis://:s3?cret@h:6379": "there is a ? before its @: in user and password write %23 for #, %2F for /, %3F for ?",
    "redis://:s3/cret@h:6379": "there is a / before its @: in user and password write %23 for #, %2F for /",
    "redis://:s3 cret@h:6379": "there is a space or a line break in it",
    "redis://:s3cret%ff@h": "user or password is not UTF-8 where it is written with %",
    "redis://:s3cret%00@h": "user or password contains %00",
    # the host and its port
    "redis://": "it names no host",
    "redis://:s3cret@/0": "it names no host",
    "redis://a:6379,b:6379/0": "it names several hosts: give one primary, or begin with redis+sentinel:// or redis+cluster://",
    "redis://:s3cret@h:port": "its port is no number from 1 to 65535",
    "redis://:s3cret@h:99999": "its port is no number from 1 to 65535",
    "redis://:s3cret@h:0": "its port is no number from 1 to 65535",
    "redis://:s3cret@h:": "its port is no number from 1 to 65535",
    "redis://:s3cret@[::1": "its host is none: an IPv6 address stands in [brackets]",
    "redis://::1": "its host is none: an IPv6 address stands in [brackets]",
    "redis://a..b": "its host is neither a name nor an address",
    "redis://a$b": "its host is neither a name nor an address",
    # the database
    "redis://h/abc": "its database is no number: after host and port may stand one such as /0",
    "redis://h/-1": "its database is no number",
    "redis://h/99999999999": "its database is no number",
    "redis://h/1?db=2": "it names two databases",
    "redis://h?db=x": "its database is no number",
    # the options
    "redis://:s3cret@h?decode_responses=true": "after the ? stands an option that is none of these: db, username, ",
    "redis://:s3cret@h?timeout=5": "after the ? stands an option that is none of these: db, username, ",
    "redis://:s3cret@h?socket_timeout=soon": "its timeout is no number of seconds above 0",
    "rediss://:s3cret@h?ssl_cert_reqs=CERT_NONE": "its ssl_cert_reqs takes none, optional or required",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs is for TLS: begin with rediss://",
    "rediss://h?ssl_ca_certs=/no/such/file": "ssl_ca_certs or ssl_ca_path names can't be read: No such file",
    # a socket's path
    "unix://run/redis.sock": "after unix:// stands the absolute path of a socket: unix:///run/redis.sock",
    "unix:///": "after unix:// stands the absolute path of a socket",
    f"unix:///{'x' * 107}": "its path is too long for a socket: at most 107 bytes",
}


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_redis_url_is_one_line_that_names_the_part_and_shows_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    said = str(caught.value)
    assert said.startswith("REDIS_URL=(hidden): ")
    assert WRONG[url] in said
    assert "\n" not in said
    assert not any(part in said for part in ("s3", "cret", "CERT_NONE"))


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(RedisUrlError, match=r"the file that its ssl_ca_certs or ssl_ca_path names is not in PEM"):
        parse_redis_url(f"rediss://h?ssl_ca_certs={tmp_path / 'ca.pem'}")


RIGHT: dict[str, tuple[Any, ...]] = {
    "redis://localhost": (Transport.TCP, {"host": "localhost"}),
    "redis://:p%40ss@[::1]:6379/3": (Transport.TCP, {"password": "p@ss", "host": "::1", "port": 6379, "db": 3}),
    "redis://:p@ss:word%23@h/": (Transport.TCP, {"password": "p@ss:word#", "host": "h"}),
    "valkey://h:1/2": (Transport.TCP, {"host": "h", "port": 1, "db": 2}),
    "valkeys://h": (Transport.TLS, {"host": "h"}),
    "rediss://user:secret@h:6380?ssl_cert_reqs=none": (
        Transport.TLS,
        {"username": "user", "password": "secret", "host": "h", "port": 6380, "ssl_cert_reqs": "none"},
    ),
    "redis://h?password=a%26b&db=1": (Transport.TCP, {"host": "h", "password": "a&b", "db": 1}),
    "unix:///run/redis.sock?db=1": (Transport.UNIX, {"path": "/run/redis.sock", "db": 1}),
    "unix://:secret@/run/redis.sock": (Transport.UNIX, {"path": "/run/redis.sock", "password": "secret"}),
    "redis+sentinel://user:secret@s1:26379,s2,[::1]:5/mymaster/3?sentinel_username=x&sentinel_password=p%40ss": (
        Transport.TCP,
        {"username": "user", "password": "secret", "db": 3},
        Sentinels(
            (Address("s1", 26379), Address("s2", 26379), Address("::1", 5)),
            "mymaster",
            {"username": "x", "password": "p@ss"},
        ),
    ),
    "valkeys+sentinel://s1/m.y-master_1": (
        Transport.TLS,
        {},
        Sentinels((Address("s1", 26379),), "m.y-master_1", {}),
    ),
    "redis+cluster://:secret@n1:7000,n2:7001,n3": (
        Transport.TCP,
        {"password": "secret"},
        ClusterNodes((Address("n1", 7000), Address("n2", 7001), Address("n3", 6379))),
    ),
    "rediss+cluster://n1?ssl_cert_reqs=none": (
        Transport.TLS,
        {"ssl_cert_reqs": "none"},
        ClusterNodes((Address("n1", 6379),)),
    ),
}


@pytest.mark.parametrize("url", RIGHT)
def test_a_redis_url_of_every_kind_is_taken_and_a_connection_can_be_made_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings().redis_url.get_secret_value() == url
    assert parse_redis_url(url) == RedisUrl(*RIGHT[url])
    for client in (sync_client(RedisAddress(url)), async_client(RedisAddress(url))):
        pool: Any = client.connection_pool
        assert pool.make_connection()
    assert not any(part in describe_redis(url) for part in ("p%40ss", "secret", "p@ss", "a%26b"))


def test_a_url_that_became_wrong_is_an_outage_that_names_the_part() -> None:
    with pytest.raises(redis.ConnectionError, match=r"^REDIS_URL: it names no host$"):
        RedisAddress(lambda: "redis://:s3cret@").read()
