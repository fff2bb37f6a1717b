"""A contiguous run of events, against a list."""

from hypothesis import given
from hypothesis import strategies as st

from listener.sequencer.event_window import EventWindow


@given(st.lists(st.sampled_from(["append", "append", "take", "extend", "take many"]), max_size=40))
def test_a_window_has_what_was_added_and_not_taken(actions: list[str]) -> None:
    window, model, first = EventWindow(7), list[bytes](), 7
    for action in actions:
        match action:
            case "append":
                model.append(b"%d" % (first + len(model)))
                window.append(model[-1])
            case "extend":
                added = [b"%d" % (first + len(model) + number) for number in range(700)]
                model += added
                window.extend(added)
            case _:
                count = min(len(model), 700 if action == "take many" else 1)
                taken, model = model[:count], model[count:]
                first += count
                assert window.take(count) == taken
        assert (len(window), window.first, window.next) == (len(model), first, first + len(model))
        assert window.bytes == sum(map(len, model))
        middle = len(model) // 2
        assert window.batch(first + middle, 5, 1000) == model[middle : middle + 5]


def test_a_batch_has_at_least_one_text_and_about_as_many_bytes_as_it_may() -> None:
    window = EventWindow(1)
    for size in (10, 10, 10, 50):
        window.append(b"x" * size)
    assert [len(window.batch(1, 10, limit)) for limit in (1, 10, 11, 20, 30, 31, 80)] == [1, 1, 2, 2, 3, 4, 4]
    assert len(window.batch(4, 10, 1)) == 1
