"""Generated settings (names, values, files): none ends in a traceback, shows a secret or starts the demo by mistake.

A case that fails prints its seed: `python -c "from tests.unit.test_generated_settings import Case; print(Case(4711))"`
shows it.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from app.appliance import ApplianceError
from app.appliance.prepare import check_demo_is_meant
from app.composition import compose
from app.core import setting_names
from app.core.config import SETTINGS, Settings, load_settings, where_settings_come_from
from app.core.operator_errors import OperatorError
from app.core.postgres import database_url, describe, listening_conninfo
from app.core.redis_address import redis_address
from app.core.settings_sources import SettingsError, servers_given
from listener.verify import settings_checks
from notifymux.redis_client import async_client, describe_redis, sync_client
from tests.support.process import environment
from tests.support.servers import free_port

SECRET = "s3cr3tPw"
KEY = f"-----BEGIN PRIVATE KEY-----\nMIIE{SECRET}\n-----END PRIVATE KEY-----\n"
OF_SERVERS = ("DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME", "REDIS_URL", "REDIS_URL_FILE")

TEXTS = (
    *(
        "",
        " ",
        "x",
        "true",
        "0",
        "1",
        "-1",
        "8000",
        "1e999",
        "nan",
        "9" * 5000,
        "1_000",
        "٣",
        "*",
        "ünï cöde",
        "a,b",
        ",",
    ),
    *("db", "db:5432", "a,b,c", "::1", "[::1]", "[::1]:5432", "/run/postgresql", "a..b", "x" * 300, "host=db", "1,2,3"),
    *("tcp://10.0.0.1:5432", f"postgres://app:{SECRET}@db:5432/app", f"app:{SECRET}@db", f"db password={SECRET}"),
    *("redis://cache", "valkey://cache:1/2", "redis://", "redis+sentinel://a:1,b:2/m", "redis://h/abc", "redis://[::1"),
    *(f"redis://:{SECRET}@h/1", f"redis://:{SECRET}#x@h", f"redis://:{SECRET}?x=1@h", f"redis://:{SECRET}/x@h:99999"),
    *(f"unix://:{SECRET}@/run/redis.sock", "unix://x", f"redis://h?decode_responses=true&password={SECRET}"),
    *("rediss://h?ssl_ca_certs=/no/file", "rediss://h?ssl_cert_reqs=none", "redis://h?socket_timeout=x", "redis://%00"),
    *("file", "empty", "folder", "missing", "key", "url", "/dev/null", "binary", "SELECT %(match_id)s", "SELECT 1"),
    *(
        "https://example.com",
        "https://a/b",
        "/live",
        "/live/",
        "info",
        "verify-full",
        "json",
        KEY,
        KEY.replace("\n", "\\n"),
    ),
    *(
        "it's",
        'say "no"',
        "a # b",
        "#",
        "$HOME ${X}",
        "%",
        "\\",
        "a\tb",
        "a\nb",
        "\ufeff",
        "\u2028",
        "'",
        '"',
        "\x1b[31m",
    ),
)
FOREIGN_IN_ENVIRONMENT = ("HOME_PAGE", "DB_SERVICE_HOST", "REDIS_PORT", "OTHER", "node_env", "A.B", "X-Y", "ÄÖ", "1A")
LEADING = ("DATABASE_URL", "PGHOST")  # they lead to a server, in `.env`
FOREIGN = (*LEADING, "")
FITTING = {
    "DB_HOST": ("db", "a,b", "::1", "[::1]", "/run/postgresql"),
    "DB_PASSWORD": (SECRET, f"{SECRET} '#\"%$"),
    "DB_PASSWORD_FILE": ("file", "missing"),
    "REDIS_URL": ("redis://cache", f"valkey://:{SECRET}@cache:1/2", f"unix://:{SECRET}@/run/redis.sock", "rediss://h"),
    "REDIS_URL_FILE": ("url", "file"),
    "SNAPSHOT_QUERY": ("SELECT %(match_id)s",),
    "USE_REDIS_NOTIFIER": ("true", "false"),
    "WS_JWT_SECRET": (SECRET * 4, SECRET),
    "WS_JWT_SECRET_FILE": ("file",),
    "MAX_CLIENTS_PER_ADDRESS": ("10",),
    "ALLOWED_ORIGINS": ("https://example.com",),
    "REDIS_NAMESPACE": ("prod",),
}
STATEMENTS: tuple[Callable[[str, str], str], ...] = (
    *(lambda name, text: f"{name}={text}",) * 20,
    lambda name, text: f"export {name} = {text}",
    lambda name, text: f"{name}='{text}'",
    lambda name, text: f'{name}="{text}"',
    lambda name, text: f"{name}: {text}",
    lambda name, text: f"{name} {text}",
    lambda name, text: f"set {name}={text}",
    lambda name, text: f"{name}='{text}",
    lambda name, text: f'- {name}="{text}',
    lambda name, text: f"'{name}'={text} # {text}",
)


def _default(name: str) -> str:
    default = SETTINGS[name].default
    return ",".join(default) if isinstance(default, tuple) else str("" if default is None else default)


def _is_text(text: str) -> bool:
    return text.strip().strip("'\"").strip() not in {"", "#"}


class Case:
    """One set-up: an environment, a `.env` and the files that settings may name."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.seed = seed
        self.leads_to_a_server = False
        self.environment = dict(self._entry() for _ in range(self._random.choice((0, 1, 1, 2, 4))))
        if self._random.random() < 0.5:
            self.environment.setdefault("DB_HOST", "db")
            self.leads_to_a_server = True
        self.kind = self._random.choice(("file",) * 8 + ("none", "folder", "dangling"))
        self.leads_to_a_server |= self.kind in {"folder", "dangling"}
        self.dotenv = b""
        if self.kind == "file":
            ends = self._random.choice(("\n", "\r\n"))
            text = "".join(self._line() + ends for _ in range(self._random.choice((0, 1, 2, 3, 6))))
            self.dotenv = text.encode() + self._random.choice((b"",) * 9 + (b"\xff",))

    def __str__(self) -> str:
        return f"seed {self.seed}: environment {self.environment}, .env {self.kind} {self.dotenv!r}"

    def _entry(self) -> tuple[str, str]:
        name, text = self._name_and_text(FOREIGN_IN_ENVIRONMENT)
        return name, text + ("\udcff" if self._random.random() < 0.05 else "")

    def _line(self) -> str:
        pick = self._random
        if pick.random() < 0.1:
            return pick.choice(
                ("", "   ", "# DB_HOST=db", "\t# it's", "\ufeff", "a\x00b", "=", "= x", "DB_HOST=a\x00b")
            )
        return pick.choice(STATEMENTS)(*self._name_and_text((*FOREIGN_IN_ENVIRONMENT, *FOREIGN)))

    def _name_and_text(self, foreign: tuple[str, ...]) -> tuple[str, str]:
        """A setting, nearly one, or a foreign one. Those of a server lead to it, unless their text is empty."""
        pick = self._random
        text = pick.choice(TEXTS)
        if pick.random() < 0.15:
            name = pick.choice(foreign)
            self.leads_to_a_server |= name in LEADING and _is_text(text)
            return name, text
        name = pick.choice(OF_SERVERS if pick.random() < 0.4 else tuple(SETTINGS))
        if pick.random() < 0.85:
            text = pick.choice(FITTING.get(name) or (_default(name),))
        self.leads_to_a_server |= name in OF_SERVERS and _is_text(text)
        spelling = pick.random()
        place = pick.randrange(len(name))
        if spelling < 0.1:
            name = name[:place] + name[place + 1 :]
        elif spelling < 0.2:
            name = name[:place] + name[place] + name[place:]
        return pick.choice((name, name, name, name.lower(), name.title())), text

    def write(self, folder: Path) -> None:
        """Write its files."""
        files = {"file": SECRET, "empty": "\n", "key": KEY, "url": f"redis://:{SECRET}@h\n"}
        for name, text in files.items():
            (folder / name).write_text(text)
        (folder / "binary").write_bytes(b"\xff\x00")
        (folder / "folder").mkdir()
        path = folder / ".env"
        if self.kind == "file":
            path.write_bytes(self.dotenv)
        elif self.kind == "folder":
            path.mkdir()
        elif self.kind == "dangling":
            path.symlink_to("nowhere")


def use(settings: Settings) -> None:
    """Use the settings as the programs do when they start; nothing connects."""
    where_settings_come_from()
    setting_names.warnings()
    settings_checks.tokens(settings)
    if settings.db_host:
        url = database_url(settings)
        listening_conninfo(url, "name")
        assert SECRET not in describe(url)
    url = settings.redis_url.get_secret_value()
    assert SECRET not in describe_redis(url)
    address = redis_address(settings)
    for client in (sync_client(address), async_client(address)):
        client.connection_pool.make_connection()
    compose(settings)


def outcome() -> str:
    """Return `own`, `demo`, or the lines of a refusal; as `prepare` decides, after which the programs start."""
    try:
        settings = load_settings()
        if not servers_given():
            check_demo_is_meant(settings)
            return "demo"
        use(settings)
    except (SettingsError, ApplianceError, OperatorError) as error:
        return f"refused: {error}"
    return "own"


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment of nothing."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a case; return the first word of its outcome."""
    folder.mkdir()
    case.write(folder)
    with monkeypatch.context() as patched:
        patched.chdir(folder)
        for name, text in case.environment.items():
            patched.setenv(name, text)
        try:
            found = outcome()
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{case}") from error
    assert SECRET not in found, case
    assert found.isprintable() or "\n" in found, case
    assert not (found == "demo" and case.leads_to_a_server), case
    return found.partition(":")[0]


def run(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return Counter(check(Case(seed), folder / str(seed), monkeypatch) for seed in seeds)


def test_of_some_generated_settings_none_ends_in_a_traceback_or_starts_the_demo_by_mistake(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(range(300), clean, monkeypatch)
    assert set(found) == {"own", "demo", "refused"}, found


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_4_000_generated_settings_none_ends_in_a_traceback_or_starts_the_demo_by_mistake(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(range(4_000), clean, monkeypatch)
    assert min(found["own"], found["demo"], found["refused"]) > 80, found


@pytest.mark.long
@pytest.mark.timeout(600)
def test_prepare_decides_of_generated_settings_as_the_settings_do(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself: exit code 0 or 2, one line for each fault, and no demo where something leads to a server."""
    for seed in range(50):
        case = Case(seed)
        decided = check(case, clean / f"{seed}-in-process", monkeypatch)
        folder = clean / str(seed)
        folder.mkdir()
        case.write(folder)
        address = {"HOST": "127.0.0.1", "PORT": str(free_port())}
        result = subprocess.run(
            [sys.executable, "-m", "app.appliance", "prepare"],
            cwd=folder,
            env=environment(case.environment | address),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        shown = f"{case}\n{result.stdout}{result.stderr}"
        assert result.returncode in {0, 2}, shown
        assert SECRET not in result.stdout + result.stderr, shown
        assert all(line.startswith("notifymux: ") for line in result.stderr.splitlines()), shown
        assert (folder / ".run" / "embedded.env").exists() <= (decided == "demo"), shown
