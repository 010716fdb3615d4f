"""What a training run that goes wrong looks like from inside, and which of its states is the best one.

Pure: a run's figures in, sentences out; asks no model, writes no file, so a resumed run sees what a whole one sees.

A new signature is its name in the contract (`skill_contract.evaluation.Signature` and the CRD), a function that looks,
and a line in MONITORS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skill_contract.evaluation import Action, Alarm, Signature
from skill_contract.spec import Gates, Method
from skill_trainer.gates import LEARN_MORE
from skill_trainer.monitors import in_probes, in_steps
from skill_trainer.monitors.best import best_step
from skill_trainer.monitors.in_steps import RISEN_AFTER
from skill_trainer.monitors.watched import APART, Look, Watched

__all__ = ["MONITORS", "Monitor", "Watched", "best_step", "look", "too_short_for", "way_to_learn"]


@dataclass(frozen=True, slots=True)
class Monitor:
    """A signature with what finds it and what is done about it."""

    signature: Signature
    action: Action
    look: Look
    sampled: bool = False
    """Whether it is about answers that the student has sampled, which SFT does not do."""
    steps: int = 1
    """Without so many it cannot look."""
    probes: int = 0
    """Nor without so many of these."""
    at_end: bool = False
    """Whether the whole evaluation after training is looked at, too, which is as good as any number of probes."""

    def can_look(self, watched: Watched) -> bool:
        """Returns whether there is enough to look at."""
        if watched.at_end:
            return self.at_end
        return len(watched.reports) >= self.steps and len(watched.probed()) >= self.probes


MONITORS = (
    Monitor(Signature.TEACHER_IGNORED, Action.MARK, in_steps.teacher_ignored, sampled=True),
    Monitor(Signature.SAMPLER_DIFFERS, Action.MARK, in_steps.sampler_differs, sampled=True),
    Monitor(Signature.NO_LOSS, Action.STOP, in_steps.no_loss_at_all, sampled=True),
    Monitor(Signature.DIVERGENCE_RISING, Action.STOP, in_steps.divergence_rising, sampled=True, steps=RISEN_AFTER),
    Monitor(Signature.ENTROPY_COLLAPSE, Action.MARK, in_steps.entropy_collapse, sampled=True, steps=APART),
    Monitor(Signature.LENGTH_DRIFT, Action.MARK, in_steps.length_drift, sampled=True, steps=APART),
    Monitor(Signature.THOUGHTS_FADE, Action.MARK, in_steps.thoughts_fade, sampled=True, steps=APART),
    Monitor(Signature.ANSWERS_CUT, Action.MARK, in_steps.answers_cut, sampled=True, steps=APART),
    Monitor(Signature.NO_LOSS, Action.MARK, in_steps.no_loss, sampled=True, steps=APART),
    Monitor(Signature.REPETITION, Action.STOP, in_steps.repetition, sampled=True, steps=APART),
    Monitor(Signature.LOSS_CONCENTRATED, Action.MARK, in_steps.loss_concentrated, sampled=True, steps=APART),
    Monitor(Signature.FEEDBACK_COLLAPSE, Action.STOP, in_probes.feedback_collapse, sampled=True, steps=APART, probes=1),
    Monitor(Signature.TEACHER_DRIFT, Action.MARK, in_probes.teacher_drift, sampled=True, probes=1),
    Monitor(Signature.RETENTION_DROP, Action.MARK, in_probes.retention_drop, probes=1),
    Monitor(Signature.FORGETTING, Action.STOP, in_probes.forgetting, probes=2),
    Monitor(Signature.LEAKED_PHRASES, Action.MARK, in_probes.leaked_phrases, probes=1, at_end=True),
    Monitor(Signature.NOTHING_LEARNED, Action.MARK, in_probes.nothing_learned, probes=2, at_end=True),
)
"""Stop is for what more steps only make worse; what may be the skill itself (short answers, sure ones) is a Mark."""


WHY_NOTHING = {
    Signature.TEACHER_IGNORED, Signature.NO_LOSS, Signature.SAMPLER_DIFFERS, Signature.DIVERGENCE_RISING,
    Signature.FEEDBACK_COLLAPSE, Signature.REPETITION, Signature.ANSWERS_CUT, Signature.NOTHING_LEARNED,
}  # fmt: skip
"""Where one of these was seen, more of the same steps teach no more."""
MOST_WORDS = 400
"""Characters of an alarm in a gate's reason, which has 1024."""


def look(watched: Watched) -> tuple[Alarm, ...]:
    """Returns what is seen at the last step of `watched` and was not seen before, in the order of MONITORS."""
    step, found = watched.reports[-1].step, dict[Signature, Alarm]()
    raised = {alarm.signature for report in watched.reports for alarm in report.alarms or ()}
    for monitor in _in_force(watched.method, watched.gates):
        name = monitor.signature
        if name in raised or name in found or not monitor.can_look(watched):
            continue
        if message := monitor.look(watched):
            found[name] = Alarm(signature=name, step=step, action=monitor.action, message=message[:512])
    if watched.gates.monitors.mode == "Warn":
        return tuple(alarm.model_copy(update={"action": Action.MARK}) for alarm in found.values())
    return tuple(found.values())


def way_to_learn(alarms: Sequence[Alarm]) -> str:
    """Returns what to do where the skill was not learned: what the alarm says that tells why, a stop before a mark."""
    telling = [alarm for alarm in alarms if alarm.signature in WHY_NOTHING]
    stops = [alarm for alarm in telling if alarm.action is Action.STOP]
    if stops:
        return f"{stops[0].signature} says why: {stops[0].message[:MOST_WORDS]}"
    if telling:
        return f"first what {telling[0].signature} says ({telling[0].message[:MOST_WORDS]}), then {LEARN_MORE}"
    return LEARN_MORE


def too_short_for(method: Method, gates: Gates, steps: int, probes: int) -> dict[Signature, str]:
    """Returns which signatures a run of so many steps and probes cannot show, each with what it would take."""
    blind = dict[Signature, str]()
    for monitor in _in_force(method, gates):
        if steps < monitor.steps:
            blind[monitor.signature] = f"{monitor.steps} steps"
        elif probes < monitor.probes and not monitor.at_end:
            blind[monitor.signature] = "1 probe" if monitor.probes == 1 else f"{monitor.probes} probes"
    return blind


def _in_force(method: Method, gates: Gates) -> Iterator[Monitor]:
    for monitor in MONITORS if gates.monitors.mode != "Skip" else ():
        if monitor.signature not in gates.monitors.ignore and (method.type == "SDFT" or not monitor.sampled):
            yield monitor
