"""`.env` that is no file, or whose lines don't parse: one line says which, and the demo does not start."""

import inspect
from pathlib import Path

import pytest
from dotenv.parser import Binding, Original, parse_stream

from app.core.config import SETTINGS, load_settings
from app.core.setting_names import misnamed, warnings
from app.core.settings_sources import SettingsError, servers_given
from tests.unit.test_prepare import prepare, programs, refusal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without a setting."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def refused(text: str) -> str:
    Path(".env").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_nothing_started(folder: Path) -> None:
    assert not (folder / "data").exists()
    assert not (folder / ".run" / "embedded.env").exists()


def test_a_dotenv_that_is_a_folder_is_one_line_and_starts_no_demo(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert ".env can't be read: it is a folder, as Docker makes one" in refusal(prepare(folder))
    assert_nothing_started(folder)


def test_a_dotenv_that_is_a_dangling_link_is_one_line_and_starts_no_demo(folder: Path) -> None:
    (folder / ".env").symlink_to("elsewhere/.env")
    assert ".env can't be read: it is a link to 'elsewhere/.env'" in refusal(prepare(folder))
    assert_nothing_started(folder)


def test_a_dotenv_that_is_a_link_to_a_file_is_read(folder: Path) -> None:
    (folder / "settings").write_text("DB_HOST=db")
    (folder / ".env").symlink_to("settings")
    assert load_settings().db_host == "db"


def test_a_dotenv_that_links_to_itself_is_one_line(folder: Path) -> None:
    (folder / ".env").symlink_to(".env")
    with pytest.raises(SettingsError, match=r"^\.env can't be read: [^\n]+$"):
        load_settings()


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("DB_HOST: db", "write = for the colon"),
        ("DB_HOST db", "the = is missing"),
        ("DB_HOST", "the = is missing"),
        ("set DB_HOST=db", "remove what stands before the name"),
        ('$env:DB_HOST="db"', "remove what stands before the name"),
        ("- DB_HOST=db", "what stands before the = is no name"),
        ('DB_HOST="db', "a quote is not closed"),
        ("DB_PASSWORD='it's'", "a quote is not closed, or text follows it"),
    ],
)
def test_a_line_that_does_not_parse_is_named_by_its_number_and_starts_no_demo(
    line: str, remedy: str, folder: Path
) -> None:
    (folder / ".env").write_text(f"# comment\n\nLOG_LEVEL=info\n\n\n{line}\nPORT=8000\n")
    said = refusal(prepare(folder))
    assert said.startswith("notifymux: .env, line 6: it takes NAME=value; "), said
    assert remedy in said
    assert "it's" not in said
    assert_nothing_started(folder)


def test_a_quote_that_takes_in_the_line_of_a_setting_is_named(folder: Path) -> None:
    (folder / ".env").write_text('LOG_FORMAT=text\nSNAPSHOT_QUERY="SELECT %(match_id)s\nDB_HOST=db\nDB_NAME=app"\n')
    assert ".env, line 2: the quote that opens here takes in DB_HOST" in refusal(prepare(folder))
    assert_nothing_started(folder)


def test_a_value_of_several_lines_is_taken() -> None:
    Path(".env").write_text("SNAPSHOT_QUERY='SELECT %(match_id)s,\n  a = 1\nFROM t'\r\nPORT=1\n")
    assert load_settings().snapshot_query == "SELECT %(match_id)s,\n  a = 1\nFROM t"
    assert load_settings().port == 1


def test_a_key_whose_lines_stand_without_quotes_is_refused_and_not_shown() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nc2VjcmV0c2VjcmV0==\n-----END PRIVATE KEY-----"
    said = refused(f"WS_JWT_PUBLIC_KEY={key}\n")
    assert said.startswith(".env, line 2: ")
    assert not any(part in said for part in ("MIIE", "c2VjcmV0"))


def test_a_line_that_is_not_utf8_is_named_by_its_number() -> None:
    Path(".env").write_bytes(b"DB_USER=a\nDB_NAME=\xff")
    with pytest.raises(SettingsError, match=r"^\.env can't be read: line 2 is not UTF-8$"):
        load_settings()


def test_of_two_entries_of_one_name_in_any_case_the_last_that_is_not_empty_counts() -> None:
    Path(".env").write_text("DB_HOST=first\ndb_host=second\nDB_HOST=\n")
    assert load_settings().db_host == "second"
    assert servers_given()


def test_in_the_environment_the_name_in_capitals_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_HOST", "capitals")
    monkeypatch.setenv("db_host", "small")
    assert load_settings().db_host == "capitals"


def test_a_server_in_lower_case_starts_no_demo(folder: Path) -> None:
    (folder / ".env").write_text("db_host=db\n")
    assert prepare(folder).returncode == 0
    assert programs(folder) == []
    assert_nothing_started(folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("DB_HOSTS=db", "DB_HOSTS in .env is no setting: DB_HOST is"),
        ("DBHOST=db", "DBHOST in .env is no setting: DB_HOST is"),
        ("DB_HOST_FILE=/run/secrets/host", "DB_HOST_FILE in .env is no setting: DB_HOST is"),
        ("REDDIS_URL=redis://cache", "REDDIS_URL in .env is no setting: REDIS_URL is"),
        ("REDIS_HOST=cache", "REDIS_HOST in .env is no setting"),
        ("DATABASE_URL=postgres://u:s3cret@db/app", "DATABASE_URL in .env is no setting"),
        ("PGHOST=db", "PGHOST in .env is no setting"),
        ("POSTGRES_HOST=db", "POSTGRES_HOST in .env is no setting"),
    ],
)
def test_a_server_under_a_name_that_is_no_setting_starts_no_demo(line: str, said: str, folder: Path) -> None:
    (folder / ".env").write_text(line)
    refused = refusal(prepare(folder))
    assert said in refused
    assert "s3cret" not in refused
    assert_nothing_started(folder)


def test_a_misspelt_server_in_the_environment_starts_no_demo(folder: Path) -> None:
    assert "DB_HOTS in the environment is no setting: DB_HOST is" in refusal(prepare(folder, DB_HOTS="db"))
    assert_nothing_started(folder)


def test_a_name_that_is_nearly_a_settings_is_warned_of_once_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("DB_HOST=db\nUSE_REDIS_NOTIFER=true\nOTHER_PROGRAMS=1\n")
    monkeypatch.setenv("WS_JWT_SECRETS", "s3cret")
    assert warnings() == [
        "WS_JWT_SECRETS in the environment is no setting: WS_JWT_SECRET is; it was not read",
        "USE_REDIS_NOTIFER in .env is no setting: USE_REDIS_NOTIFIER is; it was not read",
    ]


FOREIGN = [
    *("HOSTNAME", "HOME", "PWD", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "PATH", "PYTHONPATH", "KUBERNETES_PORT"),
    *("DB_SERVICE_HOST", "DB_SERVICE_PORT", "DB_PORT_5432_TCP", "DB_PORT_5432_TCP_ADDR", "REDIS_PORT", "PGHOST"),
    *("REDIS_SERVICE_HOST", "REDIS_PORT_6379_TCP", "DATABASE_URL", "POSTGRES_PASSWORD", "SUPERVISOR_PROCESS_NAME"),
    *("LOGS", "LOG", "SSH_CLIENT", "HOSTTYPE", "POD_IP", "POD_NAMESPACE", "NODE_NAME", "PORTAL"),
]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_set_in_the_environment_is_not_warned_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    assert not [each for each in misnamed() if each.name == name]


def test_python_dotenvs_parser_which_it_does_not_document_has_what_is_used_of_it() -> None:
    """`dotenv.parser` is in no `__all__`: if this fails, `settings_sources` has to read `.env` in another way."""
    assert Binding._fields == ("key", "value", "original", "error")
    assert Original._fields == ("string", "line")
    assert list(inspect.signature(parse_stream).parameters) == ["stream"]
