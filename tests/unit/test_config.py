"""Settings: where they are set, what they take, and that secrets are not shown."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from dotenv import dotenv_values
from psycopg.conninfo import conninfo_to_dict

from app.core.config import DEFAULT_CHANNELS, Settings, load_settings, where_settings_come_from
from app.core.postgres import database_url, describe, url_without_password
from app.core.settings_sources import SettingsError, servers_given
from app.core.settings_types import Secret
from notifymux.redis_client import describe_redis
from tests.support.process import environment

FIELDS = {field.name: field for field in fields(Settings)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without a setting."""
    monkeypatch.chdir(tmp_path)
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".run").mkdir()
    return tmp_path


def takes(name: str) -> str:
    """What errors say that a setting takes."""
    return str(FIELDS[name.lower()].metadata["type"].takes)


def write_env(text: str) -> None:
    Path(".env").write_text(text, encoding="utf-8")


def write_embedded(text: str) -> None:
    Path(".run/embedded.env").write_text(text, encoding="utf-8")


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def run_listener(folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "listener"]
    return subprocess.run(
        command, cwd=folder, env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )


def test_the_environment_is_over_dotenv_over_embedded_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().db_user == "postgres"
    write_embedded("DB_USER=embedded\nDB_NAME=embedded\nLOG_LEVEL=debug")
    assert load_settings().db_user == "embedded"
    write_env("DB_USER=dotenv\nDB_NAME=dotenv")
    assert load_settings().db_user == "dotenv"
    set_environment(monkeypatch, DB_USER="environment")
    settings = load_settings()
    assert (settings.db_user, settings.db_name, settings.log_level, settings.port) == (
        "environment",
        "dotenv",
        "debug",
        8000,
    )


@pytest.mark.parametrize("name", ["DB_HOST", "REDIS_URL", "REDIS_URL_FILE"])
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_with_a_server_set_nothing_of_the_embedded_settings_counts(
    name: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_embedded('DB_HOST=127.0.0.1\nDB_PASSWORD=embedded\nREDIS_URL=redis://embedded\nUSE_REDIS_NOTIFIER="true"')
    assert not servers_given()
    assert load_settings().db_host == "127.0.0.1"
    (folder / "url").write_text("redis://own")
    value = {"DB_HOST": "own", "REDIS_URL": "redis://own", "REDIS_URL_FILE": "url"}[name]
    if place == ".env":
        write_env(f"{name}={value}")
    else:
        set_environment(monkeypatch, **{name: value})
    settings = load_settings()
    assert servers_given()
    assert settings.db_host == ("own" if name == "DB_HOST" else None)
    assert settings.redis_url.get_secret_value() == ("redis://localhost:6379" if name == "DB_HOST" else "redis://own")
    assert settings.db_password is None
    assert settings.use_redis_notifier is False


def test_an_empty_value_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    write_env("DB_HOST=\nPORT=9000\nLOG_LEVEL=")
    set_environment(monkeypatch, PORT="")
    assert not servers_given()
    settings = load_settings()
    assert (settings.db_host, settings.port, settings.log_level) == (None, 9000, "info")


def test_a_name_in_lower_case_is_the_same_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    write_env("db_host=dotenv")
    assert servers_given()
    assert load_settings().db_host == "dotenv"
    set_environment(monkeypatch, Db_Host="environment")
    assert load_settings().db_host == "environment"


def test_an_edit_of_dotenv_counts_at_the_next_reading() -> None:
    write_env("USE_REDIS_NOTIFIER=true")
    assert load_settings().use_redis_notifier
    write_env("USE_REDIS_NOTIFIER=false")
    assert not load_settings().use_redis_notifier


def test_a_secret_may_be_in_a_file_of_its_own() -> None:
    Path("password").write_text("p@ss word\n", encoding="utf-8")
    Path("url").write_text("rediss://:s3cret@redis:6380/2\r\n", encoding="utf-8")
    write_env("DB_HOST=h\nDB_PASSWORD_FILE=password\nREDIS_URL_FILE=url")
    settings = load_settings()
    assert settings.db_password == Secret("p@ss word")
    assert settings.redis_url.get_secret_value() == "rediss://:s3cret@redis:6380/2"


@pytest.mark.parametrize(
    ("name", "value"), [("DB_PASSWORD", "s3cret"), ("REDIS_URL", "redis://:s3cret@h")], ids=["password", "url"]
)
def test_a_secret_and_its_file_together_are_an_error(name: str, value: str) -> None:
    Path("file").write_text(value, encoding="utf-8")
    write_env(f"DB_HOST=h\n{name}={value}\n{name}_FILE=file")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{name} and {name}_FILE are both given: give one of them"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), (b"\xff\xfe", "it is not text")],
    ids=["missing", "binary"],
)
@pytest.mark.parametrize("name", ["DB_PASSWORD_FILE", "REDIS_URL_FILE"])
def test_a_secret_file_that_cannot_be_read_is_one_line(name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        Path("file").write_bytes(content)
    write_env(f"{name}=file")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{name}='file': {reason}; it takes the path of a readable file"


def test_a_dotenv_that_is_not_text_is_one_line() -> None:
    Path(".env").write_bytes(b"DB_USER=\xff")
    with pytest.raises(SettingsError, match=r"^\.env can't be read: [^\n]*$"):
        load_settings()


SPECIAL = "100% \"quoted\" $HOME ${HOME} ; # 'single' \\ ünï"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("DB_PASSWORD='100% \"quoted\" $HOME ${HOME} ; # \\'single\\' \\\\ ünï'", SPECIAL),
        ('DB_PASSWORD="100% \\"quoted\\" $HOME ${HOME} ; # \'single\' \\\\ ünï"', SPECIAL),
        ("DB_PASSWORD=100%$HOME;${HOME}'\"", "100%$HOME;${HOME}'\""),
        ("DB_PASSWORD=with spaces inside", "with spaces inside"),
        ("DB_PASSWORD=no#comment", "no#comment"),
        ("DB_PASSWORD=value # a comment", "value"),
        ("export DB_PASSWORD = value", "value"),
        ("DB_PASSWORD=a=b==", "a=b=="),
    ],
)
def test_values_in_dotenv_are_taken_as_they_are(line: str, value: str) -> None:
    write_env(f"DB_USER=before\n{line}\nDB_NAME=after\n")
    settings = load_settings()
    assert settings.db_password is not None
    assert settings.db_password.get_secret_value() == value
    assert (settings.db_user, settings.db_name) == ("before", "after")


def test_values_in_the_environment_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, DB_PASSWORD=f" {SPECIAL}\n")
    settings = load_settings()
    assert settings.db_password is not None
    assert settings.db_password.get_secret_value() == f" {SPECIAL}\n"


WRONG = [
    ("DB_PORT", "543Z"),
    ("DB_PORT", "0"),
    ("DB_PORT", "5432,"),
    ("DB_SSLMODE", "on"),
    ("USE_REDIS_NOTIFIER", "maybe"),
    ("REDIS_NAMESPACE", "no spaces"),
    ("REDIS_NAMESPACE", "{braces}"),
    ("STREAM_MAXLEN", "99"),
    ("STREAM_MAXLEN", "20_000.5"),
    ("STREAM_MAXBYTES", "0"),
    ("NOTIFY_CHANNELS", " , "),
    ("NOTIFY_CHANNELS", "match_change,pg_notify_mux"),
    ("NOTIFY_CHANNELS", "pg_notify_mux_0123"),
    ("NOTIFY_CHANNELS", "ü" * 32),
    ("ROUTING_KEY", "data"),
    ("ROUTING_KEY", "operation"),
    ("ROUTING_KEY", 'a"b'),
    ("ROUTING_KEY", "a\nb"),
    ("SNAPSHOT_QUERY", "SELECT 1"),
    ("SNAPSHOT_POOL", "101"),
    ("SNAPSHOT_TIMEOUT", "0"),
    ("SNAPSHOT_TIMEOUT", "nan"),
    ("BUFFER_EVENTS", "-1"),
    ("BUFFER_BYTES", "64MB"),
    ("CANARY_INTERVAL", "0.01"),
    ("CANARY_INTERVAL", "61"),
    ("WEB_CONCURRENCY", "four"),
    ("PORT", "65536"),
    ("ROOT_PATH", "live"),
    ("ROOT_PATH", "/live/"),
    ("CLIENT_QUEUE_BYTES", "0"),
    ("PING_INTERVAL", "inf"),
    ("POD_NAME", "a/b"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_one_line_with_its_name_what_it_was_and_what_it_takes(name: str, value: str) -> None:
    write_env(f"{name}='{value}'")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{name}={value!r}: it takes {takes(name)}"


def test_all_wrong_values_are_reported_together() -> None:
    write_env("PORT=x\nLOG_LEVEL=loud\nDB_PORT=y")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert {line.partition("=")[0] for line in str(caught.value).splitlines()} == {"PORT", "LOG_LEVEL", "DB_PORT"}


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("NOTIFY_CHANNELS=b, a ,,b", "notify_channels", ("b", "a")),
        ('NOTIFY_CHANNELS="With Space,ünï,a.b"', "notify_channels", ("With Space", "ünï", "a.b")),
        ("LOG_LEVEL=WARNING", "log_level", "warning"),
        ("DB_SSLMODE=Verify-Full", "db_sslmode", "verify-full"),
        ("USE_REDIS_NOTIFIER=1", "use_redis_notifier", True),
        ("STATUS_PAGE=Off", "status_page", False),
        ("snapshot_timeout=1.5", "snapshot_timeout", 1.5),
        ("LATEST_WINS_CHANNELS=,", "latest_wins_channels", ()),
        ("ROOT_PATH=/live/scores", "root_path", "/live/scores"),
        ("ROUTING_KEY=game id", "routing_key", ("game id",)),
        ("ROUTING_KEY=game-id, tournament_id,season", "routing_key", ("game-id", "tournament_id", "season")),
        ("STREAM_MAXLEN=100", "stream_maxlen", 100),
    ],
)
def test_a_value_means(line: str, field: str, value: object) -> None:
    write_env(line)
    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("match_id,", "one of the names is empty"),
        (",cup", "one of the names is empty"),
        ("match_id,cup,cup", "one of the names is there twice"),
        ("cup, cup", "one of the names is there twice"),
        ("match_id,cup-id", "a key after the first takes letters, digits and _, and begins with a letter"),
        ("match_id,_cup", "a key after the first takes letters, digits and _, and begins with a letter"),
        *[
            (f"game,{taken}", "a key after the first can't have the name of something else")
            for taken in ("type", "id", "match_id", "code", "reason", "token", "last_event_id", "match", "after", "sub")
        ],
    ],
)
def test_routing_keys_that_could_not_be_told_from_something_else_are_one_line(keys: str, says: str) -> None:
    write_env(f"ROUTING_KEY={keys}")
    with pytest.raises(SettingsError, match=rf"^ROUTING_KEY='{keys}': {says}[^\n]*$"):
        load_settings()


@pytest.mark.parametrize(("hosts", "port", "given"), [("a,b", "1", "1"), ("a, b", "1, 2", "1,2"), ("a", "1", "1")])
def test_several_hosts_have_one_port_or_one_each(hosts: str, port: str, given: str) -> None:
    write_env(f"DB_HOST={hosts}\nDB_PORT={port}")
    parts = conninfo_to_dict(database_url(load_settings()))
    assert (parts["host"], parts["port"]) == (hosts.replace(" ", ""), given)
    assert parts["target_session_attrs"] == "read-write"
    shown = {"a,b 1": "a:1,b:1", "a,b 1,2": "a:1,b:2", "a 1": "a:1"}
    assert describe(database_url(load_settings())).startswith(shown[f"{parts['host']} {port.replace(' ', '')}"] + ", ")


@pytest.mark.parametrize(("hosts", "ports"), [("a,b,c", "1,2"), ("a,b", "1,2,3"), ("a", "1,2")])
def test_another_number_of_ports_is_one_line(hosts: str, ports: str) -> None:
    write_env(f"DB_HOST={hosts}\nDB_PORT={ports}")
    with pytest.raises(SettingsError, match=rf"^DB_PORT='{ports}': it takes one port [^\n]*$"):
        load_settings()


def test_a_password_file_is_read_again_for_every_connection_string() -> None:
    Path("password").write_text("first\n", encoding="utf-8")
    write_env("DB_HOST=h\nDB_PASSWORD_FILE=password")
    settings = load_settings()
    assert conninfo_to_dict(database_url(settings))["password"] == "first"
    Path("password").write_text("second\n", encoding="utf-8")
    assert conninfo_to_dict(database_url(settings))["password"] == "second"
    Path("password").unlink()
    with pytest.raises(SettingsError, match="DB_PASSWORD_FILE"):
        database_url(settings)
    assert "password" not in conninfo_to_dict(url_without_password(settings))


def test_a_wrong_value_ends_the_listener_with_one_line_and_exit_code_2(folder: Path) -> None:
    result = run_listener(folder, {"DB_HOST": "h", "DB_PORT": "x", "DB_PASSWORD": "s3cret"})
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"notifymux: DB_PORT='x': it takes {takes('DB_PORT')}\n"


def test_a_wrong_value_in_dotenv_ends_gunicorn_with_one_line_and_exit_code_2(folder: Path) -> None:
    write_env("DB_HOST=h\nDB_PASSWORD=s3cret\nREDIS_URL=redis://:s3cret#x@h")
    command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:app.gunicorn_conf", "app.main:app"]
    result = subprocess.run(
        command, cwd=folder, env=environment({}), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    [line] = (result.stdout + result.stderr).splitlines()
    assert line.startswith("notifymux: REDIS_URL=(hidden): there is a # in it: ")


def test_a_listener_without_a_database_logs_what_to_set_and_exits_2(folder: Path) -> None:
    result = run_listener(folder, {"REDIS_URL": "redis://:s3cret@h"})
    assert result.returncode == 2
    assert "DB_HOST is not set: it takes the host of the PostgreSQL to listen to" in result.stdout.splitlines()[-1]
    assert "s3cret" not in result.stdout + result.stderr


def test_a_secret_shows_in_no_text_of_the_settings() -> None:
    write_env("DB_HOST=h\nDB_PASSWORD=s3cret\nREDIS_URL=redis://u:s3cret@r?password=s3cret")
    settings = load_settings()
    for text in (repr(settings), str(settings), str(vars(settings))):
        assert "s3cret" not in text
    url, redis_url = database_url(settings), settings.redis_url.get_secret_value()
    assert "s3cret" in url
    assert describe(url) == "h:5432, database postgres as postgres"
    assert describe_redis(redis_url) == "redis://r"


def test_a_secret_shows_in_no_error_about_another_setting() -> None:
    write_env("DB_HOST=h\nDB_PASSWORD=s3cret\nREDIS_URL=redis://:s3cret@r\nPORT=x\nNOTIFY_CHANNELS=,")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "s3cret" not in str(caught.value) + repr(caught.value)


class Example:
    """`.env.example`: each variable with the line above it."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.variables = {
            match[1]: (above, match[2])
            for above, line in zip(self.lines, self.lines[1:], strict=False)
            if (match := re.fullmatch(r"#([A-Z][A-Z_]*)=(.*)", line))
        }


@pytest.fixture
def example(root: Path) -> Example:
    return Example(root / ".env.example")


def test_the_example_has_every_variable_and_nothing_else(example: Example) -> None:
    assert sorted(example.variables) == sorted(name.upper() for name in FIELDS)
    assert sum("=" in line and not line.startswith(("# ", "## ")) for line in example.lines) == len(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_example_explains_each_variable_in_the_settings_own_words(name: str, example: Example) -> None:
    assert example.variables[name.upper()][0] == f"# {FIELDS[name].metadata['about']}"


def test_the_example_sets_nothing(root: Path) -> None:
    assert not dotenv_values(root / ".env.example")


def test_the_example_shows_the_defaults(example: Example) -> None:
    defaults = load_settings()
    guards = {name for name in example.variables if name.startswith("WS_JWT_")}  # empty, they are refused
    lines = [f"{name}={default}" for name, (_, default) in example.variables.items() if name not in guards]
    write_env("\n".join(lines))
    assert load_settings() == defaults
    shown = {name for name, (_, default) in example.variables.items() if default}
    constant = {name.upper() for name, field in FIELDS.items() if field.default not in (None, "", ())} - {"POD_NAME"}
    assert shown == constant


def test_the_seven_channels_are_the_default() -> None:
    assert load_settings().notify_channels == DEFAULT_CHANNELS
    assert len(set(DEFAULT_CHANNELS)) == 7


def test_loading_settings_does_not_change_the_environment() -> None:
    write_env("DB_HOST=h\nDB_PASSWORD=s3cret")
    before = dict(os.environ)
    load_settings()
    assert dict(os.environ) == before


def test_the_log_has_where_each_setting_comes_from_but_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text("hidden-one")
    write_env("DB_USER=dotenv\nREDDIS_URL=redis://typo\nREDIS_URL_FILE=secret\nPORT=")
    set_environment(monkeypatch, DB_USER="environment", WS_JWT_SECRET="hidden-two")
    assert where_settings_come_from() == (
        "from the environment: DB_USER, WS_JWT_SECRET; from .env: REDIS_URL_FILE; in .env, but no settings: REDDIS_URL;"
        " the rest: defaults"
    )


def test_the_log_has_what_the_embedded_demo_sets() -> None:
    write_embedded("DB_HOST=127.0.0.1")
    assert where_settings_come_from() == "from the embedded demo: DB_HOST; the rest: defaults"
