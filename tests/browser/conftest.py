from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.appliance.test_appliance import Appliance
from tests.support import chromium as machine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser. (Of a module: while Playwright is there, nobody else has a loop.)"""
    with machine.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("browser") / "pod") as appliance:
        appliance.ready()
        yield appliance
