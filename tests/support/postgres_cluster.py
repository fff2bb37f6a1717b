"""PostgreSQL servers that replicate: primaries, standbys and copies, each in a folder of its own on loopback.

They run on the newest server that Debian's packages have installed, else on the embedded PostgreSQL 18;
TEST_POSTGRES_BIN names the folder of another one's programs.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, LiteralString, Self

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.appliance.embedded.postgres import program as embedded_program
from app.appliance.embedded.privileges import chown, drop_privileges
from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until

# An ordinary role, which may connect and do what everybody may.
ROLE, PASSWORD = "plain", "first-secret"
# A table whose trigger notifies of every new row, on a channel that programs LISTEN on by default.
_SCHEMA = f"""
CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';

CREATE TABLE score (id int, match_id int);

CREATE FUNCTION score_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('match_change', json_build_object('operation', TG_OP, 'match_id', NEW.match_id,
        'data', NEW.id)::text);
    RETURN NULL;
END $$;

CREATE TRIGGER score_changed AFTER INSERT ON score FOR EACH ROW EXECUTE FUNCTION score_changed();

"""

_SETTINGS = {
    "unix_socket_directories": "",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "autovacuum": "off",
    "wal_retrieve_retry_interval": "100ms",
    "log_line_prefix": "%m [%p] ",
}
_LISTENING = """
SELECT pid, application_name FROM pg_stat_activity
WHERE query LIKE 'LISTEN%' AND application_name LIKE 'notifymux-%' AND backend_type = 'client backend'
"""
_TRUST = """
host all all 127.0.0.0/8 trust
host replication all 127.0.0.0/8 trust
"""

IN_SYNC_REP = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"  # commits that wait


class PostgresServer:
    """One PostgreSQL server; `initialise`, `copy`, `backup` and `standby` make its data.

    Args:
        folder: the data.
        host: a loopback address.
        port: a free one if it is not given.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.folder, self.host, self.port = folder, host, port or free_port()
        self._process: Process | None = None
        self._settings: dict[str, str] = {}

    @classmethod
    def initialise(cls, folder: Path) -> Self:
        """Makes a new cluster, with a system identifier, the table and the role of its own; it is not started."""
        _run("initdb", folder, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "--wal-segsize=1")
        (folder / "pg_hba.conf").write_text(_TRUST, encoding="ascii")
        single = [str(program("postgres")), "--single", "-j", "-D", str(folder), "-c", "fsync=off", "postgres"]
        _as_owner(single, folder, text=_SCHEMA)
        return cls(folder)

    def configure(self, name: str, value: str) -> None:
        """Changes a setting of a server that is stopped; copies and standbys have it, too."""
        with (self.folder / "postgresql.auto.conf").open("a", encoding="ascii") as file:
            file.write(f"{name} = '{value}'\n")

    def copy(self, folder: Path) -> Self:
        """Copies the data of a server that is stopped: the same cluster on the same timeline."""
        subprocess.run(["cp", "-a", str(self.folder), str(folder)], check=True)
        return type(self)(folder)

    def backup(self, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> Self:
        """Copies the data of a server that runs: started as it is, the same cluster on the same timeline."""
        source = make_conninfo(self.conninfo(), dbname=None)
        _run("pg_basebackup", folder, "-d", source, "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest")
        return type(self)(folder, host, port)

    def standby(self, folder: Path, host: str = "127.0.0.1", port: int | None = None) -> Self:
        """Starts a standby of this server; its `application_name` is the folder's name."""
        return self.backup(folder, host, port).follow(self)

    def follow(self, primary: "PostgresServer") -> Self:
        """Starts this stopped server as a standby; a former primary must have been stopped before the promotion."""
        conninfo = make_conninfo(primary.conninfo(), dbname=None, application_name=self.folder.name)
        self.configure("primary_conninfo", conninfo)
        return self.recover()

    def recover(self) -> Self:
        """Starts this stopped server in recovery, from which only `promote` takes it."""
        (self.folder / "standby.signal").touch()
        return self.start()

    def start(self, environment: Mapping[str, str] | None = None, **settings: str) -> Self:
        """Starts the server, with `settings` of its own, as at every later start, and waits until it answers."""
        self._settings |= settings
        settings = {**_SETTINGS, **self._settings, "listen_addresses": self.host, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = drop_privileges([str(program("postgres")), "-D", str(self.folder), *options], self.folder)
        server = command.index(str(program("postgres")))
        # Not before the privileges are dropped: a preloaded library would make files that only root can open.
        variables = ["env", *(f"{name}={value}" for name, value in (environment or {}).items())]
        self._process = Process([*command[:server], *variables, *command[server:]], Path("/"), {})
        wait_until(self._answers, 30, lambda: self.log)
        return self

    def stop(self) -> None:
        """As `pg_ctl stop -m fast` does: sessions are ended, standbys have everything."""
        self._signal(signal.SIGINT)

    def crash(self) -> None:
        """As `pg_ctl stop -m immediate` does."""
        self._signal(signal.SIGQUIT)

    def end(self) -> None:
        """Ends the server in whatever state it is."""
        if self._process and self._process.running:
            self.thaw()
            self.crash()

    def promote(self) -> None:
        """Promotes a standby, and waits until it is a primary."""
        assert self.value("SELECT pg_promote(true, 30)")

    def freeze(self) -> None:
        """Stops the server with all its processes; the kernel still accepts connections for it."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """The opposite of `freeze`."""
        for process in reversed(self._processes()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def conninfo(self, user: str = "postgres", dbname: str = "postgres") -> str:
        """The connection string of a superuser or another role."""
        return make_conninfo(host=self.host, port=self.port, user=user, dbname=dbname, connect_timeout=5)

    def connect(self, dbname: str = "postgres") -> psycopg.Connection:
        """A superuser's connection in autocommit mode."""
        return psycopg.connect(self.conninfo(dbname=dbname), autocommit=True)

    def execute(self, query: LiteralString, *parameters: object, dbname: str = "postgres") -> list[Any]:
        """Runs one statement as superuser; its rows."""
        with closing(self.connect(dbname)) as connection:
            cursor = connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: LiteralString, *parameters: object, dbname: str = "postgres") -> Any:
        """The first column of the only row."""
        [[value, *_]] = self.execute(query, *parameters, dbname=dbname)
        return value

    def insert(self, first: int, last: int, match: int = 7, dbname: str = "postgres") -> None:
        """Commits numbered rows of a match one by one; each notifies."""
        with closing(self.connect(dbname)) as connection:
            for number in range(first, last + 1):
                connection.execute("INSERT INTO score VALUES (%s, %s)", (number, match))

    def set(self, name: str, value: str) -> None:
        """Changes a setting of the running server; new sessions have it when this returns."""
        statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value)
        with closing(self.connect()) as connection:
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self.value("SELECT current_setting(%s)", name) == value)

    def stall_commits(self) -> None:
        """From now on commits wait for a synchronous standby that there is not, until its names are set to ''."""
        self.set("synchronous_standby_names", "nobody")
        wait_until(self._a_commit_waits)

    def _a_commit_waits(self) -> bool:
        """Tries whether the checkpointer has put the setting in force, by a commit that notifies nobody."""
        with closing(self.connect()) as connection:
            attempt = connection.pgconn
            attempt.send_query(b"SELECT pg_logical_emit_message(true, 'attempt', '')")
            while not self.value(IN_SYNC_REP):
                attempt.consume_input()
                if not attempt.is_busy():
                    return False
            self.execute("SELECT pg_cancel_backend(%s)", attempt.backend_pid)
            wait_until(lambda: not self.value(IN_SYNC_REP))
            return True

    def hba(self, *lines: str) -> None:
        """Puts lines into pg_hba.conf before those that let everybody in; the lines of the last call are gone."""
        (self.folder / "pg_hba.conf").write_text("\n".join([*lines, _TRUST]), encoding="ascii")
        reloads = self.log.count("reloading configuration files")
        self.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self.log.count("reloading configuration files") > reloads)

    def listening(self) -> dict[int, str]:
        """The sessions of this product that LISTEN: process id and `application_name`."""
        return dict(self.execute(_LISTENING))

    @property
    def process(self) -> Process:
        """The running server."""
        assert self._process
        return self._process

    @property
    def log(self) -> str:
        """What the server has logged since it was started last."""
        return self._process.log if self._process else ""

    def _answers(self) -> bool:
        assert self._process
        assert self._process.running, self.log
        with suppress(psycopg.OperationalError):
            self.connect().close()
            return True
        return False

    def _signal(self, number: int) -> None:
        assert self._process
        self._process.signal(number)
        self._process.exit_code(30)

    def _processes(self) -> list[psutil.Process]:
        assert self._process
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def program(name: str) -> Path:
    """One of the server's programs."""
    if folder := os.environ.get("TEST_POSTGRES_BIN"):
        return Path(folder) / name
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return installed[-1].with_name(name) if installed else embedded_program(name)


def _run(name: str, folder: Path, *arguments: str) -> None:
    folder.mkdir(mode=0o700)
    chown(folder)
    _as_owner([str(program(name)), "-D", str(folder), *arguments], folder)


def _as_owner(command: list[str], folder: Path, text: str = "") -> None:
    command = drop_privileges(command, folder)
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, cwd="/")
    assert done.returncode == 0, done.stderr
