"""Statistics of paired right/wrong answers: two models, the same questions. Pure numbers; knows no gate.

In all functions `lost` is the number of questions that only the model before got right, `won` those that only the model
after got right, `n` all questions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf, sqrt

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95
MOST = 1_000_000
"""No answer to "how many questions" is larger."""


def difference_interval(won: float, lost: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the two-sided score interval of the change in the share of right answers, `(won - lost) / n`.

    Each bound is the change that the score test just rejects, in [-1, 1]. The interval leaves out 0 exactly where
    McNemar's asymptotic test rejects, and with no changed question it is ±z²/(n + z²), not a point. Counts may be
    fractions, for planning.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), 891-908, equations 24 to 26.
    """
    z = float(norm.ppf((1 + confidence) / 2))
    estimate = (won - lost) / n

    def distance(change: float) -> float:
        return _score(change, won, lost, n)

    low = -1.0 if estimate <= -1 else _crossing(lambda change: distance(change) - z, -1.0, estimate)
    high = 1.0 if estimate >= 1 else _crossing(lambda change: distance(change) + z, estimate, 1.0)
    return low, high


def _score(change: float, won: float, lost: float, n: float) -> float:
    """Returns Tango's statistic, standard normal where the true change is `change`; it falls as `change` grows."""
    b = -won - lost + (2 * n - won + lost) * change
    c = -lost * change * (1 - change)
    # The maximum-likelihood share of lost questions under this change.
    share = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + change * (1 - change))
    numerator = won - lost - n * change
    if variance <= 0:
        return 0.0 if numerator == 0 else inf * numerator
    return numerator / sqrt(variance)


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns the root of a falling function; the end of the range that it does not cross."""
    step = 1e-12
    left, right = min(max(function(low + step), -1e9), 1e9), min(max(function(high - step), -1e9), 1e9)
    if left <= 0:
        return low
    if right >= 0:
        return high
    return float(brentq(lambda x: min(max(function(x), -1e9), 1e9), low + step, high - step, xtol=1e-10))


def mcnemar_p(won: int, lost: int) -> float:
    """Returns the exact two-sided p of McNemar's test that as many questions are won as lost; 1 where none changed.

    Source: McNemar, Psychometrika 12 (1947), 153-157, with the binomial distribution in place of chi-squared.
    """
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def needed_for_bound(won_share: float, lost_share: float, threshold: float, *, at_least: int = 1) -> int:
    """Returns how many questions put the interval on one side of `threshold` at these shares of changed ones.

    0 where the observed change is the threshold itself or more than MOST questions would be needed.
    """
    above = won_share - lost_share > threshold
    if abs(won_share - lost_share - threshold) < 1e-9:
        return 0

    def decided(n: int) -> bool:
        low, high = difference_interval(won_share * n, lost_share * n, n)
        return low >= threshold if above else high < threshold

    return _smallest(decided, at_least)


def needed_for_precision(width: float, changed_share: float) -> int:
    """Returns how many questions bound no change by ±`width` where `changed_share` of them change, half each way."""
    half = changed_share / 2
    return _smallest(lambda n: difference_interval(half * n, half * n, n)[1] <= width, 1)


def _smallest(decided: Callable[[int], bool], at_least: int) -> int:
    """Returns the smallest n from `at_least` for which `decided` holds (it keeps holding), 0 beyond MOST."""
    high = max(1, at_least)
    while not decided(high):
        if high >= MOST:
            return 0
        high = min(MOST, high * 2)
    low = max(1, at_least) - 1 if decided(max(1, at_least)) else high // 2
    while high - low > 1:
        middle = ceil((low + high) / 2)
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
