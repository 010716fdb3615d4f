"""The gates: item-wise results before and after, with the settings of the spec, become verdicts. Pure; asks no model.

One rule for all three (docs/gates.md has it with examples). A gate has a threshold for the change of the score, and
looks at the 95 % interval of that change (`statistics.difference_interval`):

- Passed where the whole interval is on the good side: low >= threshold.
- Failed where the whole interval is on the bad side: high < threshold.
- Inconclusive otherwise, with the number of questions that would decide if the shares of changed ones stayed the same.

Two additions. `newSkill.minScore` is a plain floor under the measured score. A retention suite in which no question was
lost has Passed however few questions it has, and the reason says how large a drop it could have missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.spec import Gates, InContextGainGate, NewSkillGate, RetentionGate
from skill_trainer.statistics import difference_interval, needed_for_bound

LEARN_MORE = "train for more steps, raise the learning rate, or add training data"
NO_CONTROL = (
    "; no control with another question's demonstration is possible, as all of them have the same words: whether the "
    "teacher only copies is not known"
)


@dataclass(frozen=True)
class _Change:
    """The counts of a paired comparison and the interval of its change."""

    n: int
    right_before: int
    right_after: int
    won: int
    lost: int
    low: float
    high: float

    @property
    def gain(self) -> float:
        return (self.won - self.lost) / self.n

    def verdict(self, threshold: float) -> Verdict:
        if self.low >= threshold:
            return Verdict.PASSED
        return Verdict.FAILED if self.high < threshold else Verdict.INCONCLUSIVE

    def needed(self, threshold: float) -> int:
        """Returns how many questions would decide, 0 where the verdict is in or no number would."""
        if self.verdict(threshold) != Verdict.INCONCLUSIVE:
            return 0
        return needed_for_bound(self.won / self.n, self.lost / self.n, threshold, at_least=self.n)

    def judged(self, suite: str, threshold: float, reason: str) -> Comparison:
        return self.comparison(suite, self.verdict(threshold), reason, self.needed(threshold))

    def comparison(self, suite: str, verdict: Verdict, reason: str, needed: int = 0) -> Comparison:
        return Comparison(
            suite=suite,
            before=_short(self.right_before / self.n),
            after=_short(self.right_after / self.n),
            gain=_short(self.gain),
            low=_short(self.low),
            high=_short(self.high),
            n=self.n,
            normalized=_short(self.right_after / self.right_before) if self.right_before else 1.0,
            verdict=verdict,
            needed=needed,
            reason=reason,
        )


def _short(share: float) -> float:
    """Four decimals in what is shown and stored, finer than any suite can tell; verdicts see the whole number."""
    return round(share, 4)


def _change(suite: str, before: Sequence[bool], after: Sequence[bool]) -> _Change:
    if len(before) != len(after) or not before:
        raise ValueError(
            f"suite {suite}: {len(before)} results before and {len(after)} after: need the same questions, at least one"
        )
    pairs = list(zip(before, after, strict=True))
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    low, high = difference_interval(won, lost, len(pairs))
    return _Change(len(pairs), sum(before), sum(after), won, lost, low, high)


def in_context_gain_gate(
    suite: str,
    student: Sequence[bool],
    teacher: Sequence[bool],
    settings: InContextGainGate,
    *,
    copy_control: Sequence[bool] | None = None,
    answer_nats: Mapping[str, float] | None = None,
) -> Comparison:
    """Returns whether the demonstration in context helps by at least `minGain`; else it cannot teach.

    `student` and `teacher` are the results of the same weights without and with each question's own demonstration;
    `copy_control` those with another question's demonstration: near the teacher's score they mean that it learns the
    task from a demonstration, near the student's that it only copies the answer; empty where there is no other one,
    None where nobody asked. `answer_nats` are the mean nats per token of the right answers for `student`, `teacher`
    and `control`, if known. Neither changes the verdict.

    Raises:
        ValueError: where the results are of different lengths or there are none.
    """
    change = _change(suite, student, teacher)
    way_out = "write clearer demonstrations, choose another `prompt.template`, or train by `method.type: SFT`"
    reason = _gain_reason(change, "with the demonstration in context", settings.min_gain, way_out)
    if copy_control is not None:
        reason += _control_reason(_change(suite, student, copy_control)) if copy_control else NO_CONTROL
    if answer_nats:
        nats = {name: f"{value:.2f}" for name, value in answer_nats.items()}
        reason += f"; the right answer takes {nats['teacher']} nats per token with the demonstration, "
        reason += f"{nats['student']} without" + (f", {nats['control']} with another's" if "control" in nats else "")
    return change.judged(suite, settings.min_gain, reason)


def new_skill_gate(
    suite: str, before: Sequence[bool], after: Sequence[bool], settings: NewSkillGate, *, way_out: str = LEARN_MORE
) -> Comparison:
    """Returns whether the new skill was learned: its held-out score rose by at least `minGain` and reaches `minScore`.

    `way_out` is what to do where it was not.

    Raises:
        ValueError: where the results are of different lengths or there are none.
    """
    change = _change(suite, before, after)
    score = change.right_after / change.n
    if score < settings.min_score:
        right = f"{change.right_after} of {change.n} right"
        reason = f"score {score:.2f} ({right}) is below minScore {settings.min_score:g}: {way_out}"
        return change.comparison(suite, Verdict.FAILED, reason)
    return change.judged(suite, settings.min_gain, _gain_reason(change, "after training", settings.min_gain, way_out))


def retention_gates(
    before: Mapping[str, Sequence[bool]], after: Mapping[str, Sequence[bool]], settings: RetentionGate
) -> tuple[Comparison, ...]:
    """Returns one comparison per suite, in the order of `before`: whether what the parent could is still there.

    The drop allowed is the smaller of `maxDrop` and `(1 - minNormalized) * before`, so that one bound answers for both.

    Raises:
        ValueError: where the suites or their numbers of results differ.
    """
    if before.keys() != after.keys():
        raise ValueError(f"suites before {sorted(before)} and after {sorted(after)} differ")
    return tuple(_retention(suite, before[suite], after[suite], settings) for suite in before)


def allowed_drop(before: float, settings: RetentionGate) -> float:
    """Returns by how much a suite's score may fall from `before` (both are shares of right answers)."""
    return min(settings.max_drop, (1 - settings.min_normalized) * before)


def _retention(suite: str, before: Sequence[bool], after: Sequence[bool], settings: RetentionGate) -> Comparison:
    change = _change(suite, before, after)
    allowed = allowed_drop(change.right_before / change.n, settings)
    if change.lost == 0:
        return change.comparison(suite, Verdict.PASSED, _nothing_lost(change, allowed))
    return change.judged(suite, -allowed, _drop_reason(change, allowed, settings))


def judge(
    gates: Gates, skill: str, before: Mapping[str, Sequence[bool]], after: Mapping[str, Sequence[bool]], *,
    in_context_gain: Comparison | None = None, way_out: str = LEARN_MORE,
) -> Evaluation:  # fmt: skip
    """Returns the evaluation of what training has changed: suite `skill` is to be learned, all others to be kept.

    `way_out` is that of `new_skill_gate`.

    Raises:
        ValueError: where the suites or their numbers of results differ.
    """
    new_skill = new_skill_gate(skill, before[skill], after[skill], gates.new_skill, way_out=way_out)
    old, new = ({name: right for name, right in each.items() if name != skill} for each in (before, after))
    retention = retention_gates(old, new, gates.retention)
    return overall(gates, in_context_gain=in_context_gain, new_skill=new_skill, retention=retention)


def overall(
    gates: Gates,
    *,
    in_context_gain: Comparison | None = None,
    new_skill: Comparison | None = None,
    retention: Sequence[Comparison] = (),
) -> Evaluation:
    """Returns the evaluation with the verdict over all gates: Failed before Inconclusive before Passed.

    An Inconclusive gate counts as Passed under `onInconclusive: Accept`. Under Reject the verdict stays Inconclusive,
    which is not Passed. The in-context gain counts only under `mode: Enforce`.
    """
    enforced = [in_context_gain] if gates.in_context_gain.mode == "Enforce" else []
    verdicts = {comparison.verdict for comparison in (*enforced, new_skill, *retention) if comparison}
    if gates.on_inconclusive == "Accept":
        verdicts.discard(Verdict.INCONCLUSIVE)
    worst = next((each for each in (Verdict.FAILED, Verdict.INCONCLUSIVE) if each in verdicts), Verdict.PASSED)
    return Evaluation(
        in_context_gain=in_context_gain,
        new_skill=new_skill,
        retention=tuple(retention),
        worst_retention=min((each.normalized for each in retention), default=None),
        verdict=worst,
    )


def _gain_reason(change: _Change, when: str, threshold: float, way_out: str) -> str:
    scores = f"{change.right_before} of {change.n} right before, {change.right_after} {when}"
    interval = f"gain {change.gain:+.2f}, 95 % interval {change.low:+.2f} to {change.high:+.2f}"
    return f"{scores}: {interval}, {_side(change, threshold, f'minGain {threshold:g}', way_out)}"


def _control_reason(control: _Change) -> str:
    meaning = "it shows the task" if control.low > 0 else "it hardly helps, the teacher may only copy"
    return (
        f"; with another question's demonstration {control.right_after} of {control.n} are right, gain "
        f"{control.gain:+.2f}, 95 % interval {control.low:+.2f} to {control.high:+.2f}: {meaning}"
    )


def _side(change: _Change, threshold: float, limit: str, way_out: str) -> str:
    match change.verdict(threshold):
        case Verdict.PASSED:
            return f"all of it at or above {limit}"
        case Verdict.FAILED:
            return f"all of it below {limit}: {way_out}"
        case _:
            more = _more(change, change.needed(threshold))
            if change.gain < threshold:  # more questions would most likely only say so more surely
                return (
                    f"on both sides of {limit}, and what was measured is below: {way_out}; to know for sure, it {more}"
                )
            return f"on both sides of {limit}: it {more}"


def _drop_reason(change: _Change, allowed: float, settings: RetentionGate) -> str:
    scores = f"{change.lost} of {change.right_before} right answers lost, {change.won} won (n = {change.n})"
    interval = f"change {change.gain:+.3f}, 95 % interval {change.low:+.3f} to {change.high:+.3f}"
    setting = f"maxDrop {settings.max_drop:g}"
    if allowed < settings.max_drop:
        setting = f"minNormalized {settings.min_normalized:g} of {change.right_before / change.n:.2f}"
    limit = f"the limit of {-allowed:+.3f} ({setting})"
    return f"{scores}: {interval}, {_side(change, -allowed, limit, 'fewer steps or a lower learning rate keep more')}"


def _nothing_lost(change: _Change, allowed: float) -> str:
    if change.right_before == 0:
        way_out = "it cannot show forgetting; give it questions that the model can answer"
        return f"the parent got none of {change.n} right in this suite: {way_out}"
    reason = f"none of {change.right_before} right answers lost, {change.won} won (n = {change.n})"
    if change.low >= -allowed:
        return f"{reason}: lower bound {change.low:+.3f} is at or above the limit of {-allowed:+.3f}"
    needed = needed_for_bound(0.0, 0.0, -allowed) if allowed else 0
    more = (
        f"use n >= {needed} to see a drop of {allowed:g}"
        if needed
        else "no number of questions proves a drop of exactly 0"
    )
    return f"{reason}; a drop of up to {-change.low:.2f} could have gone unseen: {more}"


def _more(change: _Change, needed: int) -> str:
    if needed:
        return f"needs n >= {needed} at this effect (has {change.n}): add questions or set onInconclusive: Accept"
    return "is too near the threshold for any number of questions to tell: change the threshold or the training"
