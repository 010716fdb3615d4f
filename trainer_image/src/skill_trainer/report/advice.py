"""What to do about a gate that did not pass, with the run's own figures. Pure words; a verdict is not changed here."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import Literal

from skill_contract.evaluation import Comparison, Verdict
from skill_contract.spec import Gates
from skill_trainer.monitors import WHY_NOTHING
from skill_trainer.report.document import RunReport

Kind = Literal["learned", "kept", "teacher"]
"""Of a gate: the new skill's, a retention suite's, the in-context gain's."""


def advice(kind: Kind, row: Comparison, report: RunReport) -> Iterator[str]:
    """Yields what to do, the likeliest first; nothing where the gate has passed."""
    if row.verdict is Verdict.PASSED:
        return
    if row.verdict is Verdict.INCONCLUSIVE:
        if row.needed:
            yield f"Ask more questions: about {row.needed} would tell, there are {row.n}."
        yield "To let such doubts pass: `gates.onInconclusive: Accept`."
    match kind:
        case "learned":
            yield from _to_learn(report)
        case "kept":
            yield from _to_keep(row, report.gates)
        case "teacher":
            yield from _to_teach()


def _to_learn(report: RunReport) -> Iterator[str]:
    for mark in report.marks:
        if mark.stopped or mark.monitor in WHY_NOTHING:
            yield f"See to what {mark.monitor} says of step {mark.step}: {mark.message}."
    if any(mark.stopped for mark in report.marks):
        return  # more of the same steps would end there, too
    rate = report.settings.get("method", {}).get("optimizer", {}).get("learningRate")
    now = [f"{report.series[-1].step} steps"] if report.series else []
    now += [f"a learning rate of {rate:g}"] if isinstance(rate, float) else []
    yield f"Train more: raise `method.steps` or `method.optimizer.learningRate`{_in_brackets(now)}."
    yield (
        "Look at the answers that are still wrong: where they are right in other words, the grader is too strict "
        "(`data.heldOut.grader`)."
    )
    yield "Give more training records, and the same thing in more wordings."


def _in_brackets(parts: list[str]) -> str:
    return f" (now {', '.join(parts)})" if parts else ""


def _to_keep(row: Comparison, gates: Gates) -> Iterator[str]:
    yield "Look at the lost answers: are they worth keeping?"
    yield "Train less: fewer `method.steps` or a lower `method.optimizer.learningRate` keep more."
    if wider := _passing(row, gates):
        yield f"If such a loss is acceptable: this suite would have passed with {wider}."


def _passing(row: Comparison, gates: Gates) -> str:
    """Returns the settings under which this interval would have passed; '' where none let all be lost."""
    drop = min(1.0, ceil(100 * (0.0001 - row.low)) / 100)  # bounds are rounded to four decimals
    if drop > row.before:
        return ""
    settings = [] if gates.retention.max_drop >= drop else [f"`gates.retention.maxDrop: {drop:g}`"]
    if (1 - gates.retention.min_normalized) * row.before < drop:
        normalized = max(0, floor(100 * (1 - drop / row.before))) / 100
        settings.append(f"`gates.retention.minNormalized: {normalized:g}`")
    return " and ".join(settings)


def _to_teach() -> Iterator[str]:
    yield "Look at the answers below: what did the model make of the demonstration?"
    yield "Write demonstrations that are clear and complete, or choose another `method.sdft.prompt.template`."
    yield (
        "Begin from a larger model: small ones learn little from their context. Or train by `method.type: SFT`, which "
        "needs no teacher."
    )
