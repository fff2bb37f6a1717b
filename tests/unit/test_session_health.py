"""Whether a session that does not answer is kept or replaced."""

import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from app.core.operator_errors import OperatorError
from app.core.postgres_connect import Inspection, LockWait, QueryTimeout
from app.core.session_health import PATIENCE_SECONDS, SessionHealth

AT_WORK = Inspection(is_at_work=True, lock_wait=LockWait(3, 8.0))
NOT_AT_WORK = Inspection(is_at_work=False, lock_wait=LockWait())


class Inspections:
    """Inspections that are over when the test says so."""

    def __init__(self) -> None:
        self.started, self.is_done = 0, False
        self.outcome: Inspection | Exception = AT_WORK

    def start(self, _: Callable[[], Inspection]) -> "Inspections":
        self.started, self.is_done = self.started + 1, False
        return self

    def result(self) -> Inspection:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Session:
    """A session whose query is sent at 0 and not answered yet; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self.inspections, self.now = Inspections(), 0.0
        self.health = SessionHealth(lambda: AT_WORK, logging.getLogger("test"), self.inspections.start)
        self.health.check(0.0, is_answered=False, is_received=False)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> None:
        self.now += seconds
        self.health.check(self.now, is_answered=False, is_received=False)

    def inspected(self, outcome: Any) -> None:
        """Let the inspection that runs end."""
        self.inspections.outcome, self.inspections.is_done = outcome, True
        self.wait(0.1)

    def answered(self) -> None:
        self.health.check(self.now, is_answered=True, is_received=True)


@pytest.fixture
def session() -> Session:
    return Session()


def test_an_answer_without_the_own_notification_is_a_pooler_at_once(session: Session) -> None:
    with pytest.raises(OperatorError, match="pooler"):
        session.health.check(0.0, is_answered=True, is_received=False)


def test_a_session_that_is_at_work_is_kept_and_inspected_again(session: Session) -> None:
    session.wait(PATIENCE_SECONDS - 0.1)
    assert not session.inspections.started
    for number in range(1, 100):
        session.wait(1.0)
        assert session.inspections.started == number
        session.inspected(AT_WORK)
    assert session.health.lock_wait == (3, 8.0)
    assert "3 sessions wait for the notification lock, the first for 8 s" in str(session.health.problem)
    session.answered()
    assert (session.health.problem, session.health.lock_wait) == (None, (0, 0.0))


def test_a_session_that_is_not_at_work_is_replaced_at_the_second_look(session: Session) -> None:
    session.wait()
    session.inspected(NOT_AT_WORK)
    session.wait(1.0)
    with pytest.raises(psycopg.OperationalError, match="lost"):
        session.inspected(NOT_AT_WORK)


@pytest.mark.parametrize("between", ["it is at work", "it answers"])
def test_two_doubts_that_are_not_in_a_row_are_none(session: Session, between: str) -> None:
    for _ in range(5):
        session.wait()
        session.inspected(NOT_AT_WORK)
        session.wait()
        if between == "it answers":
            session.answered()
            session.wait(0.0)
        session.inspected(AT_WORK)


@pytest.mark.parametrize("happens", ["answered", "delivers"])
def test_what_an_inspection_saw_before_the_session_went_on_does_not_count(session: Session, happens: str) -> None:
    for _ in range(5):
        session.wait()
        if happens == "answered":
            session.answered()
            session.wait(0.0)
        else:
            session.health.session_delivers(session.now)
        session.inspected(NOT_AT_WORK)


def test_a_session_about_which_nothing_is_known_is_kept(session: Session) -> None:
    for _ in range(100):
        session.wait()
        session.inspected(psycopg.OperationalError("too many connections"))
    assert "a second connection fails: too many connections" in str(session.health.problem)


@pytest.mark.parametrize(
    ("error", "unreachable"),
    [
        (psycopg.OperationalError("connection timeout expired"), True),
        (psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already"), False),
        (QueryTimeout("a query was not answered within 3 s"), False),
    ],
)
def test_only_a_server_that_does_not_answer_a_second_connection_is_out_of_reach(
    session: Session, error: psycopg.Error, *, unreachable: bool
) -> None:
    session.wait()
    session.inspected(error)
    assert session.health.is_unreachable is unreachable
    session.answered()
    assert not session.health.is_unreachable


def test_no_second_inspection_is_started_while_one_runs(session: Session) -> None:
    for _ in range(100):
        session.wait()
    assert session.inspections.started == 1
