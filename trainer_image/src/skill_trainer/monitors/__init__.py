"""What a training run that goes wrong looks like from inside, and which of its states is the best one.

Pure: a run's figures in, sentences out; asks no model, writes no file, so a resumed run sees what a whole one sees.

A new signature is its name in the contract (`skill_contract.evaluation.Signature` and the CRD), a function that looks,
and a line in MONITORS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skill_contract.evaluation import Action, Alarm, Signature
from skill_contract.spec import Gates, Method
from skill_trainer.monitors import in_probes, in_steps
from skill_trainer.monitors.best import best_step
from skill_trainer.monitors.watched import Look, Watched

__all__ = ["MONITORS", "Monitor", "Watched", "best_step", "look"]


@dataclass(frozen=True, slots=True)
class Monitor:
    """A signature with what finds it and what is done about it."""

    signature: Signature
    action: Action
    look: Look
    sampled: bool = False
    """Whether it is about answers that the student has sampled, which SFT does not do."""
    at_end: bool = False
    """Whether the whole evaluation after training is looked at, too."""


MONITORS = (
    Monitor(Signature.TEACHER_IGNORED, Action.MARK, in_steps.teacher_ignored, sampled=True),
    Monitor(Signature.DIVERGENCE_RISING, Action.STOP, in_steps.divergence_rising, sampled=True),
    Monitor(Signature.ENTROPY_COLLAPSE, Action.MARK, in_steps.entropy_collapse, sampled=True),
    Monitor(Signature.LENGTH_DRIFT, Action.MARK, in_steps.length_drift, sampled=True),
    Monitor(Signature.ANSWERS_CUT, Action.MARK, in_steps.answers_cut, sampled=True),
    Monitor(Signature.NO_LOSS, Action.MARK, in_steps.no_loss, sampled=True),
    Monitor(Signature.REPETITION, Action.STOP, in_steps.repetition, sampled=True),
    Monitor(Signature.LOSS_CONCENTRATED, Action.MARK, in_steps.loss_concentrated, sampled=True),
    Monitor(Signature.FEEDBACK_COLLAPSE, Action.STOP, in_probes.feedback_collapse, sampled=True),
    Monitor(Signature.RETENTION_DROP, Action.MARK, in_probes.retention_drop),
    Monitor(Signature.FORGETTING, Action.STOP, in_probes.forgetting),
    Monitor(Signature.LEAKED_PHRASES, Action.MARK, in_probes.leaked_phrases, at_end=True),
    Monitor(Signature.NOTHING_LEARNED, Action.MARK, in_probes.nothing_learned, at_end=True),
)
"""Stop is for what more steps only make worse; what may be the skill itself (short answers, sure ones) is a Mark."""


def look(watched: Watched) -> tuple[Alarm, ...]:
    """Returns what is seen at the last step of `watched` and was not seen before, in the order of MONITORS."""
    raised = {alarm.signature for report in watched.reports for alarm in report.alarms or ()}
    step, found = watched.reports[-1].step, []
    for monitor in _in_force(watched.method, watched.gates):
        asked = monitor.signature not in raised and (monitor.at_end or not watched.at_end)
        if asked and (message := monitor.look(watched)):
            found.append(Alarm(signature=monitor.signature, step=step, action=monitor.action, message=message[:512]))
    if watched.gates.monitors.mode == "Warn":
        found = [alarm.model_copy(update={"action": Action.MARK}) for alarm in found]
    return tuple(found)


def _in_force(method: Method, gates: Gates) -> Iterator[Monitor]:
    for monitor in MONITORS if gates.monitors.mode != "Skip" else ():
        if monitor.signature not in gates.monitors.ignore and (method.type == "SDFT" or not monitor.sampled):
            yield monitor
