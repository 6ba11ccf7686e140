"""Of a test that is run with all combinations of several options, as few as hold every pair of values.

Most faults come of one option or of two that meet (Kuhn, Wallace and Gallo 2004, "Software Fault Interactions and
Implications for Software Testing"); the rest of the product costs minutes. All of it runs with ISOFIRE_ALL=1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations

import pytest


def fewest(rows: Sequence[Sequence[Hashable]]) -> list[int]:
    """Positions of rows, [options] each, in which every pair of values of any row occurs; greedy, the first of equals.

    Rows of fewer than two options are all taken.
    """
    pairs = [set(combinations(enumerate(row), 2)) for row in rows]
    if not all(pairs):
        return list(range(len(rows)))
    due, taken = set().union(*pairs), []
    while due:
        best = max(range(len(rows)), key=lambda at: len(pairs[at] & due))
        due -= pairs[best]
        taken.append(best)
    return sorted(taken)


def thinned(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """In their order; the rows that one `parametrize` lists are one option's values, whatever they hold."""
    tests = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {id(own[at]) for own in tests.values() for at in fewest([_options(item) for item in own])}
    return [item for item in items if id(item) in kept]


def _options(item: pytest.Item) -> list[Hashable]:
    given = dict(item.callspec.params) if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    options = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = names.split(",") if isinstance(names, str) else names
        options.append(tuple(id(given.pop(name.strip())) for name in names))
    return [*options, *(id(value) for value in given.values())]
