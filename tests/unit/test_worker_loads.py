"""The memory in which workers see what the others have."""

from app.web.worker_loads import WorkerLoads


def test_workers_see_what_the_others_have_once_they_serve() -> None:
    loads = WorkerLoads(3)
    first, second, _starting = (loads.claim() for _ in range(3))
    first.start()
    assert (first.own, first.others) == (0, [])
    second.start()
    second.add()
    second.add()
    second.remove()
    assert (first.others, second.own, second.others) == ([1], 1, [0])


def test_a_worker_that_ends_or_is_dead_is_not_seen() -> None:
    loads = WorkerLoads(3)
    ending, dead, other = (loads.claim() for _ in range(3))
    for load in (ending, dead, other):
        load.start()
        load.add()
    ending.stop()
    ending.remove()
    loads.release(dead)
    assert other.others == []


def test_a_replacement_takes_the_slot_and_begins_with_nothing() -> None:
    loads = WorkerLoads(1)
    old, other = loads.claim(), loads.claim()
    for load in (old, other):
        load.start()
        load.add()
    loads.release(old)
    new = loads.claim()
    assert other.others == []
    new.start()
    assert (new.index, new.own, other.others) == (old.index, 0, [0])


def test_a_reload_has_room_and_whoever_is_beyond_it_shares() -> None:
    loads = WorkerLoads(2)
    assert sorted(loads.claim().index for _ in range(5)) == [0, 0, 1, 2, 3]


def test_a_frozen_worker_is_not_seen_until_it_beats_again() -> None:
    now = [100.0]
    loads = WorkerLoads(2, lambda: now[0])
    frozen, living = loads.claim(), loads.claim()
    frozen.start()
    living.start()
    now[0] += 0.9
    living.beat()
    assert (frozen.others, living.others) == ([0], [0])
    now[0] += 0.2
    assert (frozen.others, living.others) == ([0], [])
    frozen.beat()
    assert living.others == [0]
