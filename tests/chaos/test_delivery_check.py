"""The check of deliveries finds each kind of error."""

from tests.chaos.delivery_check import DeliveryCheck, EventKey, Received, ambiguous_ids

ORDER = [EventKey(1, 1), EventKey(2, 1), EventKey(1, 2), EventKey(2, 2)]
RESYNC = Received(None, "1-1")


def received(*events: EventKey) -> list[Received]:
    return [Received(event, f"1-{number}") for number, event in enumerate(events, start=1)]


def counts(messages: list[Received], check: DeliveryCheck | None = None) -> tuple[int, int, int, int]:
    deliveries = (check or DeliveryCheck([ORDER])).run("c", messages)
    return deliveries.lost, deliveries.announced, deliveries.repeated, deliveries.out_of_order


def test_all_events_in_order_are_correct() -> None:
    assert counts(received(*ORDER)) == (0, 0, 0, 0)


def test_a_missing_event_is_lost_at_any_position() -> None:
    for missing in ORDER:
        assert counts(received(*(event for event in ORDER if event != missing))) == (1, 0, 0, 0)


def test_a_missing_event_is_announced_only_by_a_resync_in_its_place() -> None:
    a, _, c, d = received(*ORDER)
    assert counts([a, RESYNC, c, d]) == (0, 1, 0, 0)
    assert counts([RESYNC, a, c, d]) == (1, 0, 0, 0)
    assert counts([a, c, RESYNC, d]) == (1, 0, 0, 0)
    assert counts([a, RESYNC]) == (0, 3, 0, 0)


def test_repeated_events_and_events_out_of_order_are_counted() -> None:
    a, b, c, d = received(*ORDER)
    assert counts([a, b, b, c, d]) == (0, 0, 1, 0)
    assert counts([a, c, b, d]) == (1, 0, 0, 1)


def test_events_that_the_reference_did_not_receive_come_last_in_their_session_in_any_order() -> None:
    x, y, unsure = EventKey(3, 1), EventKey(3, 2), EventKey(3, 3)
    check = DeliveryCheck([ORDER[:2], ORDER[2:]], unreceived={x: 0, y: 0}, uncertain={unsure: 0})
    a, b, c, d = ORDER
    assert counts(received(a, b, x, y, c, d), check) == (0, 0, 0, 0)
    assert counts(received(a, b, unsure, y, x, c, d), check) == (0, 0, 0, 0)
    assert counts(received(a, b, y, c, d), check) == (1, 0, 0, 0)
    assert counts(received(a, x, y, b, c, d), check) == (1, 0, 0, 1)
    first, *rest = received(a, c, d)
    assert counts([first, RESYNC, *rest], check) == (0, 3, 0, 0)


def test_an_event_that_was_never_committed_is_an_error() -> None:
    assert "never committed" in DeliveryCheck([ORDER]).run("c", received(*ORDER, EventKey(9, 9))).errors[0]


def test_an_id_belongs_to_one_event_and_an_event_has_one_id() -> None:
    assert ambiguous_ids([received(*ORDER), received(*ORDER)]) == []
    assert len(ambiguous_ids([received(*ORDER), received(*ORDER[:3])])) == 0
    assert ambiguous_ids([received(*ORDER), received(*ORDER[1:])])
