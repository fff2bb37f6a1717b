"""The invented teams of the demo, and who plays whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Side = Literal["home", "away"]
Fixture = Mapping[Side, "Team"]

_POSITIONS = ("QB", "RB", "WR", "WR", "TE")


class Team(NamedTuple):
    """A team, with the numbers and names of its quarterback, running back, two wide receivers and tight end."""

    name: str
    abbreviation: str
    numbers: tuple[int, ...]
    offense: tuple[str, ...]


@dataclass
class Player:
    """A player of the offense in one match."""

    team: Side
    number: int
    name: str
    position: str
    yards: int = 0
    touchdowns: int = 0


def players(fixture: Fixture) -> list[Player]:
    """Return the players of both teams, who have done nothing yet."""
    return [
        Player(side, number, name, position)
        for side, team in fixture.items()
        for number, name, position in zip(team.numbers, team.offense, _POSITIONS, strict=True)
    ]


_HERONS = Team(
    "Silver Bay Herons",
    "SBH",
    (12, 28, 81, 17, 87),
    ("E. Vance", "T. Okafor", "J. Lindqvist", "M. Duarte", "P. Hale"),
)
_BADGERS = Team(
    "Iron Ridge Badgers",
    "IRB",
    (9, 33, 11, 84, 88),
    ("R. Castellan", "D. Brandt", "K. Amari", "S. Whitlock", "L. Novak"),
)
_OTTERS = Team(
    "Cedar Falls Otters",
    "CFO",
    (7, 22, 80, 14, 85),
    ("A. Moreau", "B. Tanaka", "C. Fitzroy", "W. Adeyemi", "G. Sorensen"),
)
_COMETS = Team(
    "Port Alder Comets",
    "PAC",
    (10, 25, 13, 83, 89),
    ("N. Ferreira", "O. Lund", "H. Prescott", "Z. Mbeki", "F. Keller"),
)
_RAMBLERS = Team(
    "Red Mesa Ramblers",
    "RMR",
    (5, 30, 18, 82, 86),
    ("J. Calloway", "I. Petrov", "U. Santana", "V. Marsh", "Q. Ellison"),
)
_FOXES = Team(
    "Grand Fork Foxes",
    "GFF",
    (16, 34, 19, 11, 44),
    ("C. Brandvold", "E. Nakamura", "L. Trent", "Y. Osei", "D. Harker"),
)
_LYNX = Team(
    "Lake Verne Lynx",
    "LVL",
    (3, 21, 15, 88, 84),
    ("M. Alvarado", "P. Jansen", "R. Okoro", "S. Bellamy", "T. Quist"),
)
_MINERS = Team(
    "Copper Hill Miners",
    "CHM",
    (8, 26, 12, 81, 49),
    ("B. Whitaker", "G. Romano", "K. Lindgren", "A. Diallo", "N. Forsyth"),
)
_PILOTS = Team(
    "Cape Morrow Pilots",
    "CMP",
    (4, 23, 17, 85, 80),
    ("H. Delacroix", "J. Abara", "O. Winslow", "F. Costa", "I. Magnus"),
)
_STAGS = Team(
    "North Glen Stags",
    "NGS",
    (15, 32, 10, 86, 82),
    ("W. Rourke", "L. Sandoval", "E. Pike", "T. Bergman", "C. Ndiaye"),
)
_HAWKS = Team(
    "Salt Flats Hawks",
    "SFH",
    (6, 20, 87, 13, 83),
    ("D. Monroe", "V. Halloran", "S. Ito", "R. Camara", "M. Vogel"),
)
_TITANS = Team(
    "Elm Harbor Titans",
    "EHT",
    (11, 29, 14, 18, 81),
    ("K. Oyelaran", "A. Stroud", "P. Marchetti", "G. Lowell", "B. Eriksen"),
)

# By a match's id. The first match is the one that `/demo` shows.
FIXTURES: Mapping[int, Fixture] = {
    1: {"home": _HERONS, "away": _BADGERS},
    2: {"home": _OTTERS, "away": _COMETS},
    3: {"home": _RAMBLERS, "away": _FOXES},
    4: {"home": _LYNX, "away": _MINERS},
    5: {"home": _PILOTS, "away": _STAGS},
    6: {"home": _HAWKS, "away": _TITANS},
}
