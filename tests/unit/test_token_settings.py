"""What guards an instance is never off by mistake: empty, blank, of the wrong kind; and a key is never shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import SETTINGS, load_settings
from app.core.settings_sources import SettingsError
from listener.verify import settings_checks
from listener.verify.result import CheckStatus
from tests.support.process import environment


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DB_HOST", "db")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A private key and its public one, made as docs/settings.md says."""
    folder = tmp_path_factory.mktemp("keys")
    for command in ("genrsa -out private.pem 2048", "pkey -in private.pem -pubout -out public.pem"):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return (folder / "private.pem").read_text(), (folder / "public.pem").read_text()


def refused() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


@pytest.mark.parametrize("name", ["WS_JWT_SECRET", "WS_JWT_PUBLIC_KEY", "DB_PASSWORD", "REDIS_URL"])
@pytest.mark.parametrize("content", ["", "\n", " \n"])
def test_an_empty_file_of_a_secret_is_refused(name: str, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text(content)
    monkeypatch.setenv(f"{name}_FILE", "secret")
    assert refused() == f"{name}_FILE='secret': the file is empty; it takes one that holds {name}"


@pytest.mark.parametrize("name", ["WS_JWT_SECRET", "WS_JWT_SECRET_FILE", "WS_JWT_PUBLIC_KEY", "WS_JWT_PUBLIC_KEY_FILE"])
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_what_would_turn_tokens_on_is_refused_where_it_is_empty(
    name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == ".env":
        Path(".env").write_text(f"{name.lower()}=\n")
    else:
        monkeypatch.setenv(name, "")
    said = f"{name} given and empty, so no token would be needed: give a value, or remove the name"
    assert refused() == said
    monkeypatch.setenv("WS_JWT_SECRET", "s3cret" * 8)
    assert load_settings().ws_jwt_secret  # there is one: nothing is off


@pytest.mark.parametrize("secret", [" ", "\t \n"])
def test_a_blank_secret_is_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_JWT_SECRET", secret)
    assert refused() == "WS_JWT_SECRET=(hidden): it is blank; openssl rand -base64 48 makes one"


def test_a_key_as_a_secret_is_refused_and_not_shown(keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key in keys:
        monkeypatch.setenv("WS_JWT_SECRET", key)
        said = refused()
        assert said.startswith("WS_JWT_SECRET=(hidden): it is a key as PEM; WS_JWT_PUBLIC_KEY takes one")
        assert key.splitlines()[1] not in said


@pytest.mark.parametrize("written", ["in lines", "with \\n", "in a file", "encrypted"])
def test_a_private_key_as_the_public_one_is_named_and_not_shown_by_any_program(
    written: str, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private, _ = keys
    settings = {"DB_HOST": "db", "WS_JWT_PUBLIC_KEY": private.replace("\n", "\\n") if "\\" in written else private}
    if written == "encrypted":
        settings["WS_JWT_PUBLIC_KEY"] = private.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
    if written == "in a file":
        Path("key.pem").write_text(settings.pop("WS_JWT_PUBLIC_KEY"))
        settings["WS_JWT_PUBLIC_KEY_FILE"] = "key.pem"
    result = subprocess.run(
        [sys.executable, "-m", "listener", "verify"],
        cwd=tmp_path,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert (result.stdout + result.stderr) == (
        "notifymux: WS_JWT_PUBLIC_KEY=(hidden): it is a private key, which stays with whoever signs;"
        " openssl pkey -in private.pem -pubout makes its public one\n"
    )


def test_a_private_key_without_quotes_in_dotenv_is_not_shown(keys: tuple[str, str]) -> None:
    private, _ = keys
    Path(".env").write_text(f"WS_JWT_PUBLIC_KEY={private}")
    said = refused()
    assert said.startswith(".env, line 2: ")
    assert not any(line in said for line in private.splitlines()[1:-1])


def test_the_pair_that_the_documents_make_is_taken_and_verify_says_how_to_make_it(
    keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = settings_checks.tokens(load_settings())
    assert check.status is CheckStatus.WARNING
    assert "openssl rand -base64 48" in str(check.remedy)
    assert "openssl genrsa" in str(check.remedy)
    assert "openssl pkey -in private.pem -pubout" in str(check.remedy)
    monkeypatch.setenv("WS_JWT_PUBLIC_KEY", keys[1])
    assert settings_checks.tokens(load_settings()).status is CheckStatus.OK
    monkeypatch.delenv("WS_JWT_PUBLIC_KEY")
    monkeypatch.setenv("WS_JWT_SECRET", "short")
    assert "can be guessed" in settings_checks.tokens(load_settings()).text
    monkeypatch.setenv("WS_JWT_SECRET", "s3cret" * 8)
    assert settings_checks.tokens(load_settings()).status is CheckStatus.OK


def test_verify_names_what_is_nearly_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_checks.names().status is CheckStatus.OK
    monkeypatch.setenv("USE_REDIS_NOTIFER", "true")
    assert "USE_REDIS_NOTIFIER is" in settings_checks.names().text
