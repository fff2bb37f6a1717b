"""The judge notices what it is there to notice."""

from tests.chaos.delivery_check import DeliveryLog, Seen, Token, two_names

ORDER = [Token(1, 1), Token(2, 1), Token(1, 2), Token(2, 2)]
GAP = Seen(None, "1-1")


def heard(*tokens: Token) -> list[Seen]:
    return [Seen(token, f"1-{number}") for number, token in enumerate(tokens, start=1)]


def figures(seen: list[Seen], ledger: DeliveryLog | None = None) -> tuple[int, int, int, int]:
    verdict = (ledger or DeliveryLog([ORDER])).judge("c", seen)
    return verdict.lost, verdict.announced, verdict.repeated, verdict.disordered


def test_all_in_order_is_right() -> None:
    assert figures(heard(*ORDER)) == (0, 0, 0, 0)


def test_a_missing_event_is_lost_wherever_it_is() -> None:
    for absent in ORDER:
        assert figures(heard(*(token for token in ORDER if token != absent))) == (1, 0, 0, 0)


def test_a_missing_event_is_announced_only_by_a_resync_in_its_place() -> None:
    a, _, c, d = heard(*ORDER)
    assert figures([a, GAP, c, d]) == (0, 1, 0, 0)
    assert figures([GAP, a, c, d]) == (1, 0, 0, 0)
    assert figures([a, c, GAP, d]) == (1, 0, 0, 0)
    assert figures([a, GAP]) == (0, 3, 0, 0)


def test_a_repeated_event_and_one_out_of_order() -> None:
    a, b, c, d = heard(*ORDER)
    assert figures([a, b, b, c, d]) == (0, 0, 1, 0)
    assert figures([a, c, b, d]) == (1, 0, 0, 1)


def test_what_nobody_heard_before_a_crash_has_a_place_but_no_order() -> None:
    x, y, unsure = Token(3, 1), Token(3, 2), Token(3, 3)
    ledger = DeliveryLog([ORDER[:2], ORDER[2:]], unheard={x: 0, y: 0}, uncertain={unsure: 0})
    a, b, c, d = ORDER
    assert figures(heard(a, b, x, y, c, d), ledger) == (0, 0, 0, 0)
    assert figures(heard(a, b, unsure, y, x, c, d), ledger) == (0, 0, 0, 0)
    assert figures(heard(a, b, y, c, d), ledger) == (1, 0, 0, 0)
    assert figures(heard(a, x, y, b, c, d), ledger) == (1, 0, 0, 1)
    first, *rest = heard(a, c, d)
    assert figures([first, GAP, *rest], ledger) == (0, 3, 0, 0)


def test_an_event_that_was_never_committed_is_told() -> None:
    assert "never committed" in DeliveryLog([ORDER]).judge("c", heard(*ORDER, Token(9, 9))).wrong[0]


def test_an_id_names_one_event_and_an_event_has_one_id() -> None:
    assert two_names([heard(*ORDER), heard(*ORDER)]) == []
    assert len(two_names([heard(*ORDER), heard(*ORDER[:3])])) == 0
    assert two_names([heard(*ORDER), heard(*ORDER[1:])])
