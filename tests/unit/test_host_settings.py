"""DB_HOST, DB_PORT and their neighbours: what is no host, port or name is refused, and not shown."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from app.core.config import SETTINGS, load_settings
from app.core.postgres import database_url
from app.core.settings_sources import SettingsError
from tests.unit.test_prepare import prepare, refusal

ALONE = "it takes the host alone"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DB_HOST", "postgres://app:s3cret@db:5432/app", f"{ALONE} and no URL"),
        ("DB_HOST", "postgres://app:s3cret@a,b/app", f"{ALONE} and no URL"),
        ("DB_HOST", "db:5432", f"{ALONE}: the port belongs in DB_PORT"),
        ("DB_HOST", "a,b:5432", f"{ALONE}: the port belongs in DB_PORT"),
        ("DB_HOST", "[::1]:5432", f"{ALONE}: the port belongs in DB_PORT"),
        ("DB_HOST", "app:s3cret@db", f"{ALONE}, without spaces"),
        ("DB_HOST", "db s3cret", f"{ALONE}, without spaces"),
        ("DB_HOST", "host=db password=s3cret", f"{ALONE}, without spaces"),
        ("DB_HOST", "'s3cret'", "it takes a host, or several by comma"),
        ("DB_HOST", "a,,b", "it takes a host, or several by comma"),
        ("DB_HOST", "a..b", "it takes a host, or several by comma"),
        ("DB_HOST", "s3cret" * 20, "it takes a host, or several by comma"),
        ("DB_PORT", "tcp://10.0.0.1:5432", "this is what Kubernetes sets for a service that is called db"),
        ("DB_PORT", "postgres://app:s3cret@db", "it takes a whole number from 1 to 65535"),
        ("DB_NAME", "postgres://app:s3cret@db/app", "it takes a name alone"),
        ("DB_USER", "postgres://app:s3cret@db/app", "it takes a name alone"),
        ("DB_NAME", "host=db password=s3cret", "it takes a name alone"),
        ("DB_USER", "-----BEGIN s3cret", "it takes a name alone"),
        ("POD_NAME", "app:s3cret@db", "it takes up to 63 letters"),
        ("DB_PASSWORD_FILE", "postgres://app:s3cret@db", "No such file"),
    ],
)
def test_what_is_no_host_port_or_name_is_one_line_and_not_shown(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_HOST", "db")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{name}=(hidden): {said}")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_host_that_is_a_url_ends_a_start_with_exit_code_2(tmp_path: Path) -> None:
    said = refusal(prepare(tmp_path, DB_HOST="postgres://app:s3cret@db/app"))
    assert said.startswith(f"notifymux: DB_HOST=(hidden): {ALONE} and no URL")
    assert "s3cret" not in said


def test_the_port_that_kubernetes_sets_is_named_also_where_nothing_else_is_set(tmp_path: Path) -> None:
    assert "enableServiceLinks: false" in refusal(prepare(tmp_path, DB_PORT="tcp://10.0.0.1:5432"))


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("db", "db"),
        (" db ", "db"),
        ("db.example.com.", "db.example.com."),
        ("my_db-1", "my_db-1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1,10.0.0.2"),
        ("/var/run/post gres", "/var/run/post gres"),
        ("dätenbank", "dätenbank"),
    ],
)
def test_a_host_of_every_kind_is_taken(given: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", given)
    assert conninfo_to_dict(database_url(load_settings()))["host"] == host


@pytest.mark.parametrize("name", ["DB_HOST", "DB_USER", "DB_PASSWORD", "REDIS_NAMESPACE", "WS_JWT_SECRET"])
def test_bytes_that_are_not_utf8_are_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "db")
    monkeypatch.setenv(name, "s3cret\udcff")
    with pytest.raises(SettingsError, match=f"^{name}=.*: it takes UTF-8 text without NUL$"):
        load_settings()
