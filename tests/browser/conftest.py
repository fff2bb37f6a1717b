import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.appliance.test_appliance import Appliance
from tests.browser.status_page import StatusPage
from tests.support.chromium import launch_chromium
from tests.support.npm import install_packages


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser. Its scope is the module, because Playwright occupies the event loop of the thread."""
    with launch_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("browser") / "pod") as appliance:
        appliance.wait_until_ready()
        yield appliance


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which checks the accessibility of a page."""
    folder = install_packages(Path(__file__).parent, tmp_path_factory.mktemp("axe") / "project")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def status(chromium: Browser, axe: str) -> Iterator[StatusPage]:
    """A tab for the status page, in which no script may fail."""
    status = StatusPage(chromium, axe)
    yield status
    status.context.close()
    assert status.errors == []


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """The folder for screenshots; STATUS_SHOTS names one that is kept."""
    folder = Path(os.environ.get("STATUS_SHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
