"""What a report says first: the verdict in one sentence, each gate with what it asked, and what follows. Pure words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from skill_contract.evaluation import Comparison, Verdict
from skill_trainer.gates import allowed_drop
from skill_trainer.report.advice import Kind, advice
from skill_trainer.report.document import RunReport

QUESTIONS: dict[Kind, str] = {
    "learned": "Was the skill learned?",
    "kept": "Was it kept?",
    "teacher": "Does a demonstration help?",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison with what was asked of it."""

    kind: Kind
    row: Comparison
    threshold: float
    """The change of the score that the whole interval had to reach."""
    advice: tuple[str, ...]
    """What to do, where it did not pass."""

    @property
    def passed(self) -> bool:
        return self.row.verdict is Verdict.PASSED


@dataclass(frozen=True, slots=True)
class Headline:
    word: str
    """Published, Rejected, or the reason with which the run ended."""
    tone: Literal["good", "bad", "unsure"]
    sentence: str
    consequence: str
    """What this means for the versions and for what is served."""


def gates(report: RunReport) -> list[Gate]:
    """Returns the gates that were measured: the new skill's, retention with what did not pass first, the teacher's."""
    evaluation, asked = report.evaluation, report.gates
    if evaluation is None:
        return []
    kept = sorted(evaluation.retention, key=lambda row: (_severity(row), row.normalized))
    found = [_gate(report, "kept", row, -allowed_drop(row.before, asked.retention)) for row in kept]
    if evaluation.new_skill:
        found.insert(0, _gate(report, "learned", evaluation.new_skill, asked.new_skill.min_gain))
    if evaluation.in_context_gain:
        found.append(_gate(report, "teacher", evaluation.in_context_gain, asked.in_context_gain.min_gain))
    return found


def _gate(report: RunReport, kind: Kind, row: Comparison, threshold: float) -> Gate:
    return Gate(kind, row, threshold, tuple(advice(kind, row, report)))


def _severity(row: Comparison) -> int:
    return [Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED].index(row.verdict)


def headline(report: RunReport) -> Headline:
    """Returns the verdict in one sentence."""
    found, evaluation = gates(report), report.evaluation
    if evaluation is None:
        sentence = report.message or "The run ended before anything was judged."
        return Headline(report.outcome or "No verdict", "bad", sentence, "Nothing was published.")
    if evaluation.verdict is Verdict.PASSED:
        return Headline(report.outcome or "Passed", "good", _praise(report.skill, found), _published(found))
    decisive = _decisive(found)
    consequence = "Nothing was published: what is served stays as it is."
    if not report.series and evaluation.new_skill is None:
        consequence = f"Nothing was trained. {consequence}"
    tone: Literal["bad", "unsure"] = "bad" if evaluation.verdict is Verdict.FAILED else "unsure"
    return Headline("Rejected", tone, _blame(report.skill, decisive, found), consequence)


def _decisive(found: Sequence[Gate]) -> Gate:
    """Returns the gate that decided: the new skill's before retention, what Failed before what is Inconclusive."""
    after_training = [gate for gate in found if gate.kind != "teacher"]
    return min(after_training or found, key=lambda gate: _severity(gate.row))


def _praise(skill: str, found: Sequence[Gate]) -> str:
    learned = next((gate.row for gate in found if gate.kind == "learned"), None)
    if learned is None:
        return f"{skill} passed its gates."
    kept = [gate.row for gate in found if gate.kind == "kept"]
    return f"{skill} was learned: {_counts(learned)}. {_kept_sentence(kept)}"


def _kept_sentence(kept: Sequence[Comparison]) -> str:
    if not kept:
        return "What it forgot is unknown: there is no retention suite."
    worst = min(kept, key=lambda row: row.normalized)
    if worst.gain >= 0:
        return "No retention suite scores lower than before."
    return f"What was kept least is {worst.suite}: {_arrow(worst)}, {100 * worst.normalized:.0f} % of before."


def _published(found: Sequence[Gate]) -> str:
    doubtful = [gate for gate in found if not gate.passed]
    if not doubtful:
        return "Every gate passed."
    return f"Accepted by its settings although {len(doubtful)} of {len(found)} gates did not pass; see below."


def _blame(skill: str, gate: Gate, found: Sequence[Gate]) -> str:
    row = gate.row
    unsure = row.verdict is Verdict.INCONCLUSIVE
    if gate.kind == "teacher":
        said = f"with it, {_counts(row, before='without')}"
        if unsure:
            return f"Too few questions tell whether a demonstration in its context helps the model: {said}."
        return f"The model cannot teach itself {skill}: a demonstration in its context does not help it enough: {said}."
    if gate.kind == "learned":
        verb = "may or may not have been learned, too few questions tell" if unsure else "was not learned"
        return f"{skill} {verb}: {_counts(row)}."
    learned = next((each.row for each in found if each.kind == "learned"), None)
    first = f"{skill} was learned ({_arrow(learned)}), but " if learned and learned.verdict is Verdict.PASSED else ""
    verb = "may have been forgotten, too few questions tell" if unsure else "was forgotten"
    return f"{first}{row.suite} {verb}: {_arrow(row)}, {100 * row.normalized:.0f} % of before."


def _counts(row: Comparison, *, before: str = "before") -> str:
    right, was = round(row.after * row.n), round(row.before * row.n)
    return f"{right} of {row.n} questions are answered rightly, {was} {before}"


def _arrow(row: Comparison) -> str:
    return f"{row.before:.2f} → {row.after:.2f}"
