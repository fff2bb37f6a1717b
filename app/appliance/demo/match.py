"""An invented match of American football, second by second. Pure: no clock, no database."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from app.appliance.demo.teams import Fixture, Player, Side, players

OTHER: dict[Side, Side] = {"home": "away", "away": "home"}

QUARTERS = 4
QUARTER_SECONDS = 15 * 60
PLAY_CLOCK_SECONDS = 40
TIMEOUTS = 3
DOWNS = 4
FIELD_YARDS = 100
_TWO_MINUTES_SECONDS = 120


class GameEvent(NamedTuple):
    """Something that happened, with the time by the game's clock."""

    quarter: int
    clock: int
    kind: str
    team: Side
    text: str
    yards: int


class Game:
    """One match. Each step of `seconds` plays one second of it; the attributes are the state after it.

    Args:
        random: decides everything that is left to chance.
        fixture: who plays.
    """

    def __init__(self, random: Random, fixture: Fixture) -> None:
        self._random = random
        self._abbreviations = {side: team.abbreviation for side, team in fixture.items()}
        self.fixture = fixture
        self._events: list[GameEvent] = []
        self._kicker: Side | None = None  # the side that kicks off next, if a kickoff is next
        self._drive = (0, 0)  # plays, yards
        self.status = "pregame"
        self.quarter = 1
        self.clock = QUARTER_SECONDS
        self.clock_running = False
        self.play_clock = PLAY_CLOCK_SECONDS
        self.play_clock_running = False
        self.possession: Side = random.choice(("home", "away"))
        self.ball = 35  # yards from the goal line that the side in possession defends
        self.down: int | None = None  # none during kicks
        self.distance: int | None = None
        self.score: dict[Side, int] = {"home": 0, "away": 0}
        self.timeouts: dict[Side, int] = {"home": TIMEOUTS, "away": TIMEOUTS}
        self.players = players(fixture)

    @property
    def yardline(self) -> int:
        """The position of the ball, in yards from the home side's goal line."""
        return self.ball if self.possession == "home" else FIELD_YARDS - self.ball

    @property
    def drive(self) -> str:
        """The drive so far, as text."""
        plays, yards = self._drive
        return f"{plays} play{'s' * (plays != 1)}, {yards} yard{'s' * (abs(yards) != 1)}" if self.down else ""

    def take_events(self) -> list[GameEvent]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    def seconds(self) -> Iterator[None]:
        """Play the whole match, from the teams' entry to some time after the final whistle."""
        first = self.possession
        yield from self._wait(10)
        for quarter in range(1, QUARTERS + 1):
            self.status, self.quarter, self.clock = "live", quarter, QUARTER_SECONDS
            if quarter in {1, 3}:
                self._kicker = first if quarter == 1 else OTHER[first]
                self.timeouts = {"home": TIMEOUTS, "away": TIMEOUTS}
            while self.clock:
                yield from self._kickoff(self._kicker) if self._kicker else self._scrimmage()
            yield from self._whistle()

    def _whistle(self) -> Iterator[None]:
        self.clock_running = False
        score = ", ".join(f"{self._abbreviations[side]} {points}" for side, points in self.score.items())
        kind, text, rest = {2: ("halftime", "Halftime", 60), QUARTERS: ("final", "Full time", 80)}.get(
            self.quarter, ("quarter", f"End of quarter {self.quarter}", 20)
        )
        if kind != "quarter":
            self.status = kind
        self._record(kind, f"{text}: {score}")
        yield from self._wait(rest)

    # ---- one play

    def _scrimmage(self) -> Iterator[None]:
        yield from self._huddle()
        if not self.clock:
            return
        self.clock_running = True
        yield from self._wait(self._random.randint(4, 8))
        call = self._call()
        if call == "punt":
            self._punt()
        elif call == "field goal":
            self._field_goal()
        elif call == "run":
            yield from self._run()
        else:
            yield from self._pass()

    def _huddle(self) -> Iterator[None]:
        self.play_clock, self.play_clock_running = PLAY_CLOCK_SECONDS, True
        for _ in range(self._random.randint(22, 38)):
            if not self.clock:
                break
            self._consider_timeout()
            yield from self._wait(1)
        self.play_clock_running = False

    def _consider_timeout(self) -> None:
        late = self.quarter in {2, QUARTERS} and self.clock <= _TWO_MINUTES_SECONDS
        behind: Side = "home" if self.score["home"] < self.score["away"] else "away"
        if late and self.clock_running and self.timeouts[behind] and self._chance(0.04):
            self.timeouts[behind] -= 1
            self.clock_running = False
            self._record("timeout", f"Timeout {self._abbreviations[behind]}, {self.timeouts[behind]} left", team=behind)

    def _call(self) -> str:
        to_goal = FIELD_YARDS - self.ball
        if self.down == DOWNS and to_goal <= 38:  # noqa: PLR2004 - a kicker's range
            return "field goal"
        if self.down == DOWNS and not (self.distance == 1 and to_goal <= 60):  # noqa: PLR2004 - worth the risk
            return "punt"
        return "run" if self._chance(0.7 if (self.distance or 0) <= 3 else 0.42) else "pass"  # noqa: PLR2004 - short

    def _run(self) -> Iterator[None]:
        runner = self._player("QB" if self._chance(0.1) else "RB")
        if self._chance(0.012):
            self._lose("fumble", f"{runner.name} fumbles, {{other}} recovers", FIELD_YARDS - self.ball)
            return
        yards = round(self._random.gauss(4, 3.5)) + (self._random.randint(10, 60) if self._chance(0.03) else 0)
        yield from self._gain("run", yards, "{0.name} runs", runner)

    def _pass(self) -> Iterator[None]:
        passer = self._player("QB")
        target = self._player(self._random.choice(("WR", "WR", "TE", "RB")))
        luck = self._random.random()
        if luck < 0.06:  # noqa: PLR2004 - the league's rates, about
            yield from self._gain("sack", -self._random.randint(3, 9), "{0.name} is sacked", passer)
        elif luck < 0.085:  # noqa: PLR2004
            caught = min(self.ball + self._random.randint(3, 25), FIELD_YARDS)
            self._lose("interception", f"{passer.name} is intercepted by {{other}}", FIELD_YARDS - caught)
        elif luck < 0.41:  # noqa: PLR2004
            self.clock_running = False
            yield from self._gain("incomplete", 0, "{0.name} to {1.name}: incomplete", passer, target)
        else:
            yards = round(self._random.expovariate(1 / 11)) - 1
            yield from self._gain("pass", yards, "{0.name} to {1.name}", passer, target)

    def _gain(self, kind: str, yards: int, text: str, *players: Player) -> Iterator[None]:
        yards = max(-self.ball, min(yards, FIELD_YARDS - self.ball))
        self.ball += yards
        self._drive = (self._drive[0] + 1, self._drive[1] + yards)
        for player in players if kind != "sack" else ():
            player.yards += yards
        summary = text.format(*players) + ("" if kind == "incomplete" else f" for {yards} to {self._spot()}")
        self._record(kind, summary, yards)
        if self.ball == FIELD_YARDS:
            for player in players:
                player.touchdowns += 1
            yield from self._touchdown(players[-1])
        elif self.ball == 0:
            self._safety()
        else:
            self._next_down(yards)

    def _next_down(self, yards: int) -> None:
        down, distance = self.down or 1, self.distance or 0
        if yards >= distance:
            self._first_down()
        elif down < DOWNS:
            self.down, self.distance = down + 1, distance - yards
        else:
            self._lose("downs", "Turnover on downs, {other} takes over", FIELD_YARDS - self.ball)

    def _first_down(self) -> None:
        self.down, self.distance = 1, min(10, FIELD_YARDS - self.ball)

    # ---- kicks, scores and changes of possession

    def _kickoff(self, kicker: Side) -> Iterator[None]:
        self._kicker = None
        self.possession, self.ball, self.down, self.distance = kicker, 35, None, None
        yield from self._wait(self._random.randint(10, 16))
        returned = self._chance(0.4)
        if returned:
            self.clock_running = True
            yield from self._wait(5)
        self._take_over(OTHER[kicker], self._random.randint(16, 42) if returned else 30)
        how = f"returned to {self._spot()}" if returned else "touchback"
        self._record("kickoff", f"{self._abbreviations[kicker]} kicks off, {how}", team=kicker)

    def _punt(self) -> None:
        yards = min(round(self._random.gauss(43, 6)), FIELD_YARDS - self.ball)
        self._lose("punt", f"{{side}} punts {yards} yards", FIELD_YARDS - self.ball - yards)

    def _field_goal(self) -> None:
        yards = FIELD_YARDS - self.ball + 17  # the end zone, and the spot behind the line
        if self._chance(1.1 - yards**2 / 6000):
            self._score(3, "field_goal", f"{{side}} field goal from {yards} yards is good", yards)
            self._kick_off_next(self.possession)
        else:
            self._lose(
                "missed_field_goal", f"{{side}} field goal from {yards} yards is no good", FIELD_YARDS - self.ball + 7
            )

    def _touchdown(self, scorer: Player) -> Iterator[None]:
        self._score(6, "touchdown", f"Touchdown {{side}}! {scorer.name}")
        self.ball, self.down, self.distance = FIELD_YARDS - 15, None, None
        yield from self._wait(self._random.randint(14, 22))
        if self._chance(0.94):
            self._score(1, "extra_point", "{side} extra point is good")
        else:
            self._record("missed_extra_point", f"{self._abbreviations[self.possession]} extra point is no good")
        self._kick_off_next(self.possession)

    def _safety(self) -> None:
        conceding = self.possession
        self.possession = OTHER[conceding]
        self._score(2, "safety", "Safety {side}")
        self._kick_off_next(conceding)

    def _score(self, points: int, kind: str, text: str, yards: int = 0) -> None:
        self.clock_running = False
        self.score[self.possession] += points
        self._record(kind, text.format(side=self._abbreviations[self.possession]), yards)

    def _kick_off_next(self, kicker: Side) -> None:
        self._kicker, self.down, self.distance = kicker, None, None

    def _lose(self, kind: str, text: str, ball: int) -> None:
        side, other = self.possession, OTHER[self.possession]
        self._record(kind, text.format(side=self._abbreviations[side], other=self._abbreviations[other]))
        self._take_over(other, ball)

    def _take_over(self, side: Side, ball: int) -> None:
        self.clock_running = False
        self.possession, self._drive = side, (0, 0)
        self.ball = ball if ball > 0 else 20  # a touchback
        self._first_down()

    # ---- helpers

    def _wait(self, seconds: int) -> Iterator[None]:
        for _ in range(seconds):
            yield
            if self.clock_running and self.clock:
                self.clock -= 1
            if self.play_clock_running and self.play_clock:
                self.play_clock -= 1

    def _record(self, kind: str, text: str, yards: int = 0, team: Side | None = None) -> None:
        self._events.append(GameEvent(self.quarter, self.clock, kind, team or self.possession, text, yards))

    def _spot(self) -> str:
        side: Side = "home" if self.yardline < FIELD_YARDS // 2 else "away"
        if self.yardline == FIELD_YARDS // 2:
            return "the 50"
        return f"{self._abbreviations[side]} {min(self.yardline, FIELD_YARDS - self.yardline)}"

    def _player(self, position: str) -> Player:
        return self._random.choice([p for p in self.players if (p.team, p.position) == (self.possession, position)])

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability
