"""The interval covers as often as it says, and agrees with the tests that it is the inverse of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_trainer.statistics import difference_interval, mcnemar_p, needed_for_bound, needed_for_precision

Z = 1.959963984540054


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    won = draw(st.integers(0, n))
    return won, draw(st.integers(0, n - won)), n


@given(changes())
def test_interval_holds_the_estimate_and_stays_in_range(counts: tuple[int, int, int]):
    won, lost, n = counts
    low, high = difference_interval(won, lost, n)
    assert -1 <= low <= (won - lost) / n <= high <= 1
    assert low < high, "no number of questions proves a point"


@given(changes())
def test_interval_turns_with_the_models(counts: tuple[int, int, int]):
    won, lost, n = counts
    low, high = difference_interval(won, lost, n)
    assert difference_interval(lost, won, n) == pytest.approx((-high, -low), abs=1e-7)


@given(changes())
def test_interval_leaves_out_zero_exactly_where_the_asymptotic_mcnemar_test_rejects(counts: tuple[int, int, int]):
    won, lost, n = counts
    low, high = difference_interval(won, lost, n)
    statistic = abs(won - lost) / max(1, won + lost) ** 0.5
    if abs(statistic - Z) > 1e-6:
        assert (low > 0 or high < 0) == (statistic > Z)


@pytest.mark.parametrize("n", [1, 8, 50, 1000])
def test_no_change_is_not_a_point(n: int):
    bound = Z**2 / (n + Z**2)
    assert difference_interval(0, 0, n) == pytest.approx((-bound, bound), abs=1e-6)


def test_bounds_satisfy_the_score_equation():
    """Tango's statistic at each bound, by brute force over the nuisance share, is z."""
    won, lost, n = 9, 2, 60
    share = np.linspace(1e-6, 1, 2_000_001)
    for bound, wanted in zip(difference_interval(won, lost, n), (Z, -Z), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = (
                lost * np.log(share) + won * np.log(share + bound) + (n - won - lost) * np.log(1 - 2 * share - bound)
            )
        best = share[np.nanargmax(likelihood)]
        statistic = (won - lost - n * bound) / np.sqrt(n * (2 * best + bound - bound**2))
        assert statistic == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(("won", "lost"), [(0.02, 0.05), (0.4, 0.01), (0.1, 0.1), (0.03, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize("n", [30, 100])
def test_coverage_by_simulation(won: float, lost: float, n: int):
    """Of 2000 samples, about 95 % of the intervals hold the true change (standard error of that share: 0.5 %)."""
    samples = np.random.default_rng(17).multinomial(n, [won, lost, 1 - won - lost], size=2000)
    kinds, counts = np.unique(samples[:, :2], axis=0, return_counts=True)
    intervals = [difference_interval(int(ups), int(downs), n) for ups, downs in kinds]
    covered = [low <= won - lost <= high for low, high in intervals]
    assert 0.93 <= counts[covered].sum() / 2000 <= 1.0
    if min(won, lost) >= 0.05:
        assert counts[covered].sum() / 2000 <= 0.97, "not needlessly wide"


def test_mcnemar():
    assert mcnemar_p(0, 0) == 1
    assert mcnemar_p(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar_p(3, 7) == mcnemar_p(7, 3) == pytest.approx(0.34375)


@given(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(-0.3, 0.3))
def test_needed_is_the_smallest_that_decides(won: float, lost: float, threshold: float):
    needed = needed_for_bound(won, lost, threshold)

    def decided(n: int) -> bool:
        low, high = difference_interval(won * n, lost * n, n)
        return low >= threshold if won - lost > threshold else high < threshold

    if needed:
        assert decided(needed)
        assert needed == 1 or not decided(needed - 1)
    else:
        assert not decided(1_000_000) or won - lost == pytest.approx(threshold, abs=1e-8)


def test_needed_for_precision():
    needed = needed_for_precision(0.05, 0.1)
    assert difference_interval(needed * 0.05, needed * 0.05, needed)[1] <= 0.05
    assert difference_interval((needed - 1) * 0.05, (needed - 1) * 0.05, needed - 1)[1] > 0.05
