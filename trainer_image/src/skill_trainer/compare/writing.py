"""A comparison as Markdown, for the eye, and as JSON, for programs. Pure: returns text, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from skill_contract.model import Document
from skill_trainer.compare.summary import KEPT, Cell, Matrix, Mean, Point, Row

BASIS = (
    "Brackets: 95 % intervals of the mean over seeds, skills held fixed (t, pooled variance). They do not cover other "
    "questions, other skills or other models."
)


class Comparison(Document):
    """All that a comparison says, as JSON."""

    points: tuple[Point, ...] = ()
    rows: tuple[Row, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    faults: tuple[str, ...] = ()
    """Runs without scores, and why."""
    planned: int
    """Runs of the plan (in a sequence: rows of runs); fewer are here where the comparison has not been finished."""


def comparison_table(comparison: Comparison) -> str:
    """Returns one table over all skills, and one for each skill where there are several."""
    rows = comparison.rows
    parts = [_progress(len(comparison.points) + len(comparison.faults), comparison.planned), *comparison.faults]
    for skill in dict.fromkeys(row.skill for row in rows):
        chosen = [row for row in rows if row.skill == skill]
        first = chosen[0].variant
        title = [f"### {skill}", ""] if skill else []
        head = [
            "variant",
            "new skill",
            "retention",
            f"new skill − {first}",
            f"retention − {first}",
            "passed",
            "s a run",
        ]
        parts.append("\n".join([*title, *_table(head, map(_cells, chosen))]))
    parts.append(f"Retention: the worst suite's score after, as a share of before. {BASIS}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: Row) -> list[str]:
    means = [shown(mean) if mean else "—" for mean in (row.new_skill, row.retention)]
    gains = [shown(gain, sign=True) if gain else "" for gain in (row.new_skill_gain, row.retention_gain)]
    diverged = f", {row.diverged} diverged" if row.diverged else ""
    passed = f"{row.passed} of {row.made}{diverged}"
    return [row.variant, *means, *gains, passed, f"{row.seconds:.0f}"]


def matrix_table(comparison: Comparison) -> str:
    """Returns the retention matrix of every variant: suite × stage, normalised, with what the gates said below."""
    made = sum(matrix.worst.runs for matrix in comparison.matrices)
    parts = [_progress(made + len(comparison.faults), comparison.planned), *comparison.faults]
    for matrix in comparison.matrices:
        stages = ["untrained", *(f"after {skill}" for skill in matrix.stages)]
        suites = list(dict.fromkeys(cell.suite for cell in matrix.cells))
        body = [
            [suite, *(matrix_cell(cell) for cell in matrix.cells if cell.suite == suite)] for suite in suites
        ]  # fmt: skip
        body.append(["the gates", "", *map(said, matrix.verdicts)])
        worst = f"Worst suite after the last stage: {shown(matrix.worst)}."
        parts.append("\n".join([f"### {matrix.variant}", "", *_table(["", *stages], body), "", worst]))
    parts.append(
        "Cells: score, and in bold the share that is left of the score when the skill was learned (of an untrained "
        f"model's, for the suites below); ▼ below {KEPT:g}. {BASIS}"
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def matrix_cell(cell: Cell) -> str:
    """Returns a cell's score and, where there was something to keep, its normalised performance."""
    score = f"{cell.score.value:.2f}"
    if cell.normalized is None:
        return score
    return f"{score} → **{shown(cell.normalized)}**{'' if cell.kept else ' ▼'}"


def said(verdicts: Iterable[str]) -> str:
    """Returns what the gates said over the seeds: `Passed × 2, SkillForgotten × 1`."""
    return ", ".join(f"{verdict} × {count}" for verdict, count in Counter(verdicts).most_common())


def shown(mean: Mean, *, sign: bool = False) -> str:
    """Returns `0.72 [0.60, 0.84]`, without brackets for one seed or where all seeds are equal."""
    form = "+.2f" if sign else ".2f"
    if mean.low is None or mean.high is None or mean.low == mean.high:
        return f"{mean.value:{form}}"
    return f"{mean.value:{form}} [{mean.low:{form}}, {mean.high:{form}}]"


def _progress(made: int, planned: int) -> str:
    return "" if made == planned else f"**{made} of {planned} runs are finished.**"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in body:
        yield f"| {' | '.join(row)} |"
