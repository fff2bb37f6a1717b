"""Names that are no settings, and the settings that were probably meant."""

import re
from difflib import get_close_matches
from typing import NamedTuple

from app.core.config import SETTINGS
from app.core.settings_sources import names_by_source

_ALIKE = 0.85  # of difflib's ratio: a letter that is missing, double or wrong; HOSTNAME is not HOST
_OF_A_SERVER = re.compile(r"(DB|DATABASE|PG|POSTGRES|REDIS|VALKEY)")


class Misnamed(NamedTuple):
    """A name in the environment or in `.env` that is no setting."""

    name: str
    source: str
    meant: str | None  # the setting that it is nearly called; None where no name is near

    @property
    def is_of_a_server(self) -> bool:
        """Whether it seems to lead to a server."""
        return _OF_A_SERVER.match(self.meant or self.name) is not None

    def __str__(self) -> str:
        return f"{self.name} in {self.source} is no setting: " + (
            f"{self.meant} is" if self.meant else "see .env.example"
        )


def misnamed() -> list[Misnamed]:
    """Return the names in `.env` that are no settings, and those in the environment that are nearly one.

    Raises:
        SettingsError: `.env` can't be read.
    """
    found = [
        Misnamed(name, source, _meant(name))
        for source, names in names_by_source().items()
        for name in sorted(names - SETTINGS.keys())
    ]
    return [each for each in found if each.meant or each.source == ".env"]


def warnings() -> list[str]:
    """Return a line for each name that is nearly a setting's."""
    return [f"{each}; it was not read" for each in misnamed() if each.meant]


def _meant(name: str) -> str | None:
    """Return the setting that a name is nearly called."""
    base = name.removesuffix("_FILE")  # of a setting that is read from no file
    near = [base] if base in SETTINGS else get_close_matches(name, SETTINGS, n=1, cutoff=_ALIKE)
    return near[0] if near else None
