"""Which worker takes a newcomer."""

import random

from hypothesis import given
from hypothesis import strategies as st

from app.web.accept_balance import MAX_PATIENCE_MS, patience_ms, room

LOADS = st.lists(st.integers(0, 10_000), min_size=1, max_size=12)


def of_each(loads: list[int]) -> list[tuple[int, list[int]]]:
    """The load of each worker, and those of its others."""
    return [(load, loads[:index] + loads[index + 1 :]) for index, load in enumerate(loads)]


@given(LOADS)
def test_every_worker_takes_a_newcomer_after_a_bounded_time_whatever_the_others_have(loads: list[int]) -> None:
    for load, others in of_each(loads):
        assert 0 <= patience_ms(load, others) <= MAX_PATIENCE_MS
        assert room(load, others) >= 1


@given(LOADS)
def test_a_worker_with_the_least_takes_it_at_once(loads: list[int]) -> None:
    for load, others in of_each(loads):
        if load == min(loads):
            assert patience_ms(load, others) == 0


@given(LOADS)
def test_a_worker_with_more_never_goes_before_one_with_less(loads: list[int]) -> None:
    waits = [patience_ms(load, others) for load, others in sorted(of_each(loads))]
    assert waits == sorted(waits)


@given(LOADS)
def test_what_a_worker_takes_at_once_leaves_it_even_with_the_others(loads: list[int]) -> None:
    for load, others in of_each(loads):
        taken = room(load, others)
        assert taken == 1 or patience_ms(load + taken - 1, others) == 0


@given(st.integers(2, 8), st.integers(1, 2000), st.randoms(use_true_random=False))
def test_whichever_of_those_that_need_not_wait_takes_a_newcomer_the_fullest_stays_near_the_mean(
    workers: int, newcomers: int, choice: random.Random
) -> None:
    loads = [0] * workers
    for _ in range(newcomers):
        ready = [index for index, (load, others) in enumerate(of_each(loads)) if patience_ms(load, others) == 0]
        loads[choice.choice(ready)] += 1
    assert max(loads) <= 1.15 * newcomers / workers + 1


@given(st.integers(0, 500), st.lists(st.integers(1, 500), min_size=2, max_size=6))
def test_a_frozen_worker_delays_newcomers_and_does_not_decide_who_takes_them(frozen: int, living: list[int]) -> None:
    first = min(range(len(living)), key=living.__getitem__)
    waits = [patience_ms(load, [frozen, *others]) for load, others in of_each(living)]
    assert waits[first] == min(waits)
