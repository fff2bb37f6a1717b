"""docs/performance.md: what a deployment takes is what its unit costs make."""

import re

from bench import capacity
from bench.__main__ import BENCHES
from tests.support.documents import DOCS, section

PERFORMANCE = DOCS / "performance.md"


def test_the_tables_are_those_that_the_unit_costs_in_the_document_make() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    costs = capacity.unit_costs(text)
    assert capacity.pods_table(costs) in text
    assert capacity.clients_table(costs) in text


def test_every_unit_cost_is_used_and_says_which_bench_measures_it() -> None:
    costs = capacity.unit_costs(PERFORMANCE.read_text(encoding="utf-8"))
    rows = re.findall(r"^\| ([^|]+) \| \d[^|]* \| ([^|]+) \|$", section(PERFORMANCE, "Capacity"), re.MULTILINE)
    assert {name for name, _ in rows} >= costs.keys()
    for bench in re.findall(r"`bench (\w+)`", " ".join(source for _, source in rows)):
        assert bench in BENCHES
    before = capacity.pods_table(costs) + capacity.clients_table(costs)
    for name, value in costs.items():
        changed = {**costs, name: 100 * value}
        assert capacity.pods_table(changed) + capacity.clients_table(changed) != before, name
