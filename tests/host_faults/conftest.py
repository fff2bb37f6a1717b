"""Programs that are started with something around them that is not as usual."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.support.numbered import Numbered
from tests.support.silent_resolver import SilentResolver
from tests.support.wrapped import WrappedApp, WrappedListener

StartWrappedListener = Callable[[Sequence[str], Mapping[str, str]], WrappedListener]
StartWrappedApp = Callable[..., WrappedApp]


@pytest.fixture
def events(connection: psycopg.Connection) -> Numbered:
    return Numbered(connection)


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[SilentResolver]:
    with SilentResolver(tmp_path) as resolver:
        yield resolver


@pytest.fixture
def start_wrapped_listener(tmp_path: Path) -> Iterator[StartWrappedListener]:
    with ExitStack() as stack:
        yield lambda wrapper, settings: stack.enter_context(WrappedListener(wrapper, tmp_path, settings))


@pytest.fixture
def start_wrapped_app(tmp_path: Path) -> Iterator[StartWrappedApp]:
    with ExitStack() as stack:
        yield lambda wrapper, settings, workers=1: stack.enter_context(WrappedApp(wrapper, tmp_path, settings, workers))


@pytest.fixture
def start_remote_wrapped_app(tmp_path: Path) -> Iterator[StartWrappedApp]:
    """In a pod without a listener, so that it is not fed."""
    folder = tmp_path / "remote"
    folder.mkdir()
    with ExitStack() as stack:
        yield lambda wrapper, settings, workers=1: stack.enter_context(WrappedApp(wrapper, folder, settings, workers))
