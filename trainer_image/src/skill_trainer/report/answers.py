"""Chooses the answers that a report shows side by side: wrong ones first, then learned ones. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skill_trainer.evaluate import Suite, SuiteScores
from skill_trainer.report.document import SideBySide

COUNT = 20


def side_by_side(
    suites: Sequence[Suite],
    before: Mapping[str, SuiteScores],
    after: Mapping[str, SuiteScores],
    count: int = COUNT,
) -> tuple[SideBySide, ...]:
    """Returns at most `count` answers: lost ones, then those that stay wrong, then learned ones, then kept ones.

    Wrong answers take at most three fifths where there are right ones to show, so that both are seen. The suites come
    in the order given: the new skill first.
    """
    rows = [row for suite in suites for row in _rows(suite, before[suite.name], after[suite.name])]
    rows.sort(key=_order)
    wrong, right = ([row for row in rows if row.right_after is wanted] for wanted in (False, True))
    shown_wrong = min(len(wrong), max(count * 3 // 5, count - len(right)))
    return (*wrong[:shown_wrong], *right[: count - shown_wrong])


def _order(row: SideBySide) -> int:
    """Returns the place of a kind of row: lost 0, still wrong 1, learned 2, kept 3. Sorting is stable."""
    return 2 * row.right_after + (row.right_before == row.right_after)


def _rows(suite: Suite, before: SuiteScores, after: SuiteScores) -> list[SideBySide]:
    return [
        SideBySide(
            suite=suite.name,
            prompt=record.question,
            expected=record.expected,
            before=before.texts[place],
            after=after.texts[place],
            right_before=before.right[place],
            right_after=after.right[place],
        )
        for place, record in enumerate(suite.records)
    ]
