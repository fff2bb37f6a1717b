"""Who holds a session: several listeners' decisions over one registry, in virtual time (rules 16 to 18)."""

from typing import Any

from listener.reserves import (
    LOOK_SECONDS,
    STEADY_SECONDS,
    STILL_SECONDS,
    TURN_SECONDS,
    Group,
    Look,
    Looked,
    Own,
    Reserves,
    in_order,
)

STEP = 0.25  # seconds
GROUP = Group('["scores"]', "", "app")


class Process:
    """A listener: what it decides, and a session that takes a second to open."""

    def __init__(self, number: int, started: float, *, most: int, group: Group, **about: str) -> None:
        self.about = {"pod": f"pod-{number}", "program": "listener", "started": f"{started:.3f}", **about}
        self.about |= {"channels": group.channels, "slot": group.slot, "database": group.database}
        self.key = f"{self.about['pod']}:{number}"
        own = Own(self.key, self.about["pod"], self.about["program"], started, group)
        self.reserves = Reserves(most, own)
        self.beats = self.looks = self.looked_at_hashes = 0
        self.joins_at: float | None = None
        self.joined_at = 0.0
        self.role = "unconnected"
        self.is_frozen = self.is_cut_off = False  # as a whole; from PostgreSQL

    def joined_for(self, seconds: float, now: float) -> bool:
        return now - self.joined_at >= seconds


class Deployment:
    """Listeners, and the registry with their hashes."""

    def __init__(self, count: int = 0, most: int = 3) -> None:
        self.now, self.most = 100.0, most
        self.hashes: dict[str, dict[str, str]] = {}
        self.processes: list[Process] = []
        self.redis_is_up = True
        self.pages = 1  # commands that a search takes
        self.start(count)

    def start(self, count: int = 1, group: Group = GROUP, **about: str) -> Process:
        for _ in range(count):
            number = len(self.processes)
            started = self.now + number / 1000
            self.processes.append(Process(number, started, most=self.most, group=group, **about))
        return self.processes[-1] if self.processes else Process(0, 0.0, most=1, group=group)

    def kill(self, process: Process) -> None:
        self.processes.remove(process)

    @property
    def holders(self) -> list[Process]:
        return [process for process in self.processes if process.role in {"primary", "standby"}]

    @property
    def working(self) -> int:
        return sum(not process.is_frozen for process in self.holders)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += STEP
            for process in self.processes:
                if not process.is_frozen:
                    self._step(process)

    def _step(self, process: Process) -> None:
        reserves = process.reserves
        if reserves.has_to_leave:
            process.role = "unconnected"
            reserves.left()
        if process.role in {"primary", "standby"} and process.is_cut_off:
            process.role, process.joins_at = "unconnected", None
        elif process.role == "unconnected" and reserves.may_join and not process.is_cut_off:
            if process.joins_at is None:
                process.joins_at = self.now + 1
            elif self.now >= process.joins_at:
                process.role, process.joins_at, process.joined_at = "standby", None, self.now
        self._beat(process)
        for _ in range(self.pages + 10):
            look = reserves.to_redis(self.now, process.role)
            if look is None:
                return
            if not self.redis_is_up:
                reserves.on_redis_failure(self.now)
            else:
                process.looks += 1
                assert look.keys or look.cursor is not None, "nothing is asked for"
                process.looked_at_hashes += len(look.keys)
                reserves.on_answer(look, self._answer(look), self.now, process.role)
        raise AssertionError("it looks again and again")

    def _beat(self, process: Process) -> None:
        if self.redis_is_up and (self.now % 1 == 0 or not process.beats):
            process.beats += 1
            fields = {"state": "running", "role": process.role, "passive": "", "beats": str(process.beats)}
            self.hashes.setdefault(process.key, {}).update(process.about | fields)

    def _answer(self, look: Look) -> Looked:
        cursor = 0 if look.cursor is None else (look.cursor + 1) % self.pages
        found = frozenset(self.hashes) if look.cursor is not None and not cursor else frozenset[str]()
        return Looked(cursor, found, {key: dict(self.hashes[key]) for key in look.keys if key in self.hashes})


def settled(count: int = 6, most: int = 3) -> Deployment:
    deployment = Deployment(count, most)
    deployment.run(12)
    return deployment


def test_the_oldest_hold_a_session_and_the_others_are_reserves() -> None:
    deployment = settled()
    assert deployment.holders == deployment.processes[:3]
    assert [process.reserves.is_reserve for process in deployment.processes] == [False] * 3 + [True] * 3


def test_no_more_than_there_may_be_join_although_all_start_at_once() -> None:
    deployment = Deployment(50)
    for _ in range(80):
        deployment.run(STEP)
        assert len(deployment.holders) <= 3
    assert len(deployment.holders) == 3


def test_a_lone_listener_joins_at_its_first_look() -> None:
    deployment = Deployment(1)
    deployment.run(STEP)
    assert deployment.processes[0].reserves.may_join


def test_the_oldest_reserve_takes_the_place_of_one_that_was_killed_and_no_other_does() -> None:
    deployment = settled()
    first, reserve = deployment.processes[0], deployment.processes[3]
    deployment.kill(first)
    for _ in range(int((2 * LOOK_SECONDS + STILL_SECONDS) / STEP)):
        deployment.run(STEP)
        assert len(deployment.holders) <= 3
    assert len(deployment.holders) == 3
    assert reserve in deployment.holders


def test_an_orderly_end_is_seen_at_the_next_look() -> None:
    deployment = settled()
    first = deployment.processes[0]
    deployment.kill(first)
    deployment.hashes[first.key]["state"] = "stopped"
    deployment.run(LOOK_SECONDS + 2)
    assert len(deployment.holders) == 3


def test_one_that_is_frozen_holds_no_place_and_leaves_when_it_goes_on_and_is_the_youngest() -> None:
    deployment = settled()
    third = deployment.processes[2]
    third.is_frozen = True
    deployment.run(12)
    assert deployment.working == 3
    third.is_frozen = False
    deployment.run(STEADY_SECONDS + 15)
    assert deployment.holders == deployment.processes[:3]


def test_one_that_can_get_no_session_holds_no_place() -> None:
    deployment = settled()
    deployment.processes[1].is_cut_off = True
    deployment.run(LOOK_SECONDS + TURN_SECONDS + 4)
    assert deployment.working == 3
    assert deployment.processes[1].reserves.is_full


def test_one_whose_session_does_not_answer_holds_no_place() -> None:
    deployment = settled()
    first = deployment.processes[0]
    first.about["unreachable"] = "1"
    deployment.run(LOOK_SECONDS + TURN_SECONDS + 1)
    assert deployment.holders == deployment.processes[:4]
    first.about["unreachable"] = ""
    deployment.run(STEADY_SECONDS + 15)
    assert deployment.holders == deployment.processes[:3]


def test_reserves_that_can_get_no_session_hold_up_the_others_for_a_turn_each() -> None:
    deployment = settled(8)
    for process in deployment.processes[3:6]:
        process.is_cut_off = True
    deployment.kill(deployment.processes[0])
    deployment.run(2 * LOOK_SECONDS + STILL_SECONDS + 3 * TURN_SECONDS + 2)
    assert len(deployment.holders) == 3


def test_where_nobody_reaches_postgresql_so_many_try_at_a_time_and_all_in_turn() -> None:
    deployment = Deployment(9)
    for process in deployment.processes:
        process.is_cut_off = True
    deployment.run(3)
    tried = set[str]()
    for _ in range(int(3 * TURN_SECONDS / STEP) + 4):
        deployment.run(STEP)
        trying = [process.key for process in deployment.processes if process.reserves.may_join]
        assert len(trying) < 9  # turns overlap by a look
        tried.update(trying)
    assert len(tried) == 9


def test_while_redis_is_away_nobody_joins_and_nobody_leaves() -> None:
    deployment = settled()
    deployment.redis_is_up = False
    deployment.run(60)
    assert deployment.holders == deployment.processes[:3]
    deployment.redis_is_up = True
    for _ in range(80):
        deployment.run(STEP)
        assert deployment.holders == deployment.processes[:3]


def test_a_registry_that_was_wiped_changes_nothing() -> None:
    deployment = settled()
    deployment.hashes.clear()
    for _ in range(80):
        deployment.run(STEP)
        assert deployment.holders == deployment.processes[:3]


def test_the_youngest_leave_where_too_many_hold_a_session() -> None:
    deployment = settled()
    for process in deployment.processes:
        process.role = "standby"
    deployment.run(LOOK_SECONDS)
    assert len(deployment.holders) == 6
    deployment.run(STEADY_SECONDS + 15)
    assert deployment.holders == deployment.processes[:3]


def test_one_that_has_seen_others_without_a_session_notices_when_they_have_one() -> None:
    deployment = Deployment(2, most=1)
    old, young = deployment.processes
    for process in (old, young):
        process.is_cut_off = True
    deployment.run(6)
    young.is_cut_off, young.role = False, "standby"
    deployment.run(6)
    old.is_cut_off, old.role = False, "standby"
    deployment.run(LOOK_SECONDS + STEADY_SECONDS + 6)
    assert deployment.holders == [old]


def test_nobody_leaves_for_those_that_are_not_aligned() -> None:
    deployment = settled(4)
    youngest = deployment.processes[3]
    for process in deployment.processes[1:3]:
        process.role = "unaligned"
    youngest.role = "standby"
    deployment.run(STEADY_SECONDS + 20)
    assert youngest.role == "standby"


def test_nobody_leaves_for_those_that_were_there_before_it_was_frozen() -> None:
    deployment = settled(4)
    youngest = deployment.processes[3]
    youngest.role = "standby"
    for _ in range(60):
        deployment.run(STEP)
        if youngest.reserves._staying:
            break
    assert youngest.reserves._staying
    for process in deployment.processes[:3]:
        deployment.kill(process)
    youngest.is_frozen = True
    deployment.run(STEADY_SECONDS)
    youngest.is_frozen = False
    deployment.run(20)
    assert deployment.holders == [youngest]


def test_a_process_does_not_wait_for_its_predecessor() -> None:
    deployment = settled(3)
    for process in list(deployment.processes):
        deployment.kill(process)
    successor, other = deployment.start(1, pod="pod-0"), deployment.start(1, pod="pod-8")
    deployment.run(STEP)
    assert successor.reserves.may_join
    assert other.reserves.is_reserve  # the other two may be alive, and the first is older


def test_a_listener_of_another_database_or_other_channels_takes_nobodys_place() -> None:
    deployment = settled()
    others = [
        deployment.start(1, group)
        for group in (GROUP._replace(database="other"), GROUP._replace(channels="[]"), GROUP._replace(slot="one"))
    ]
    deployment.run(12)
    assert len(deployment.holders) == 6
    assert set(others) <= set(deployment.holders)


def test_the_order_of_the_channels_does_not_matter() -> None:
    deployment = Deployment()
    for channels in ('["b", "a"]', '["a", "b"]'):
        for _ in range(3):
            deployment.start(1, GROUP._replace(channels=in_order(channels))).about["channels"] = channels
    deployment.run(12)
    assert len(deployment.holders) == 3


def test_one_whose_sessions_do_not_last_lets_others_try() -> None:
    deployment = settled(3, most=1)
    oldest = deployment.processes[0]
    for _ in range(int(40 / STEP)):
        if oldest in deployment.holders and oldest.joined_for(2, deployment.now):
            oldest.role, oldest.joins_at = "unconnected", None
        deployment.run(STEP)
    assert deployment.processes[1] in deployment.holders


def test_where_redis_does_not_show_the_others_a_listener_joins() -> None:
    reserves = Reserves(3, Own("a", "pod-a", "listener", 0.0, GROUP))
    look = reserves.to_redis(0.0, "unconnected")
    assert look
    reserves.on_refusal(0.0)
    assert reserves.may_join
    assert not reserves.has_to_leave
    assert reserves.to_redis(1.0, "unconnected") is None


def test_versions_that_know_no_reserves_count_and_are_replaced_when_they_end() -> None:
    deployment = Deployment(2)
    old = list(deployment.processes)
    for process in old:  # they hold a session whatever they see
        del process.about["database"]
        process.role, process.reserves = "standby", Reserves(100, process.reserves._own)
    deployment.run(3)
    new = [deployment.start() for _ in range(3)]
    deployment.run(12)
    assert deployment.holders == [*old, new[0]]
    for process in old:
        deployment.kill(process)
        deployment.hashes[process.key]["state"] = "stopped"
    deployment.run(12)
    assert deployment.holders == new


def test_one_that_is_passive_holds_no_place() -> None:
    deployment = settled(4)
    first = deployment.processes[0]
    deployment.kill(first)
    for _ in range(60):
        first.beats += 1
        deployment.hashes[first.key] |= {"beats": str(first.beats), "role": "unaligned", "passive": "a copy"}
        deployment.run(STEP)
    assert len(deployment.holders) == 3


def test_of_those_that_wait_for_a_slot_the_youngest_leave_and_never_the_reader() -> None:
    deployment = settled(5)
    for process in deployment.processes:
        process.role = "waiting"
    reader = deployment.processes[4]
    reader.role = "primary"
    deployment.run(STEADY_SECONDS + 15)
    assert [process.role for process in deployment.processes] == ["waiting"] * 2 + ["unconnected"] * 2 + ["primary"]


def test_a_reserve_reads_no_more_than_those_that_hold_a_session() -> None:
    deployment = settled(50)
    reserve: Any = deployment.processes[-1]
    before = reserve.looked_at_hashes
    deployment.run(100)
    assert (reserve.looked_at_hashes - before) / 100 <= 3 / LOOK_SECONDS * 1.05


def test_among_any_number_of_other_keys_a_search_is_one_command_a_look_and_holds_nothing_up() -> None:
    deployment = settled(5)
    deployment.pages = 100
    first, reserve = deployment.processes[0], deployment.processes[3]
    before = first.looks
    deployment.run(100)
    assert first.looks - before <= 100 / LOOK_SECONDS
    deployment.kill(first)
    deployment.run(2 * LOOK_SECONDS + STILL_SECONDS)
    assert reserve in deployment.holders
    late = deployment.start()
    deployment.run(STEP)
    assert late.reserves.is_reserve


def test_a_listener_without_a_number_for_its_start_is_the_oldest() -> None:
    deployment = Deployment(1)
    deployment.hashes["x"] = {**deployment.processes[0].about, "started": "?", "state": "running", "role": "standby"}
    deployment.run(2)
    [other] = deployment.processes[0].reserves._others.values()
    assert other.age == (0.0, "x")
