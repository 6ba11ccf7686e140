"""Which combinations of options are run."""

from __future__ import annotations

from itertools import product

import pytest
from tests.pairs import fewest

pytest_plugins = "pytester"

FILE = """
    import pytest

    @pytest.fixture(params=range(3))
    def more(request):
        return request.param

    @pytest.mark.parametrize("a", "uvwx")
    @pytest.mark.parametrize(("b", "c"), [(1, 1), (1, 2), (2, 1), (2, 2)])
    def test_product(a, b, c, more):
        assert more != 2 or a != "x"

    @pytest.mark.parametrize(("a", "b", "c"), [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 2, 2)])
    def test_rows(a, b, c):
        pass

    @pytest.mark.parametrize("a", "uvw")
    def test_one(a):
        pass

    def test_none():
        pass
"""


@pytest.mark.parametrize("sizes", [(4, 3, 5, 2), (3, 3, 3), (2, 2, 2, 2, 2), (6, 2)])
def test_every_pair_occurs(sizes: tuple[int, ...]) -> None:
    rows = list(product(*map(range, sizes)))
    taken = [rows[at] for at in fewest(rows)]
    for a, b in product(range(len(sizes)), repeat=2):
        if a != b:
            due = set(product(range(sizes[a]), range(sizes[b])))
            assert {(row[a], row[b]) for row in taken} == due
    largest, second = sorted(sizes)[:-3:-1]
    assert largest * second <= len(taken) <= 1.6 * largest * second


def test_rows_of_one_option_and_none_are_all_taken() -> None:
    assert fewest([(1,), (2,), (1,)]) == [0, 1, 2]
    assert fewest([()]) == [0]
    assert fewest([]) == []


def test_a_run_takes_pairs_and_all_where_it_is_asked(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISOFIRE_ALL", raising=False)
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems")
    pytester.makepyfile(FILE)
    found = pytester.runpytest("-q").parseoutcomes()
    # 4 values of one option beside 4 rows of another; one of their 16 meets the third's last value in x, at least
    assert found["failed"] >= 1
    assert found["passed"] + found["failed"] + found["deselected"] == 48 + 5 + 3 + 1
    assert 16 <= found["passed"] + found["failed"] - (5 + 3 + 1) <= 20
    monkeypatch.setenv("ISOFIRE_ALL", "1")
    assert pytester.runpytest("-q").parseoutcomes() == {"failed": 4, "passed": 53}
