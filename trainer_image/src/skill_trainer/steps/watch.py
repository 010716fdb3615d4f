"""A run's watch: asks the probes, raises the alarms, and keeps the weights of the best state.

All that it knows is in the run's series and in one file of weights, so a resumed run goes on watching where it was. It
never changes the weights that are trained, nor any random number.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from skill_contract.evaluation import Action, Alarm
from skill_trainer.checkpoint import load_weights, save_weights, take_best
from skill_trainer.evaluate import Suite, SuiteScores, score
from skill_trainer.model import LanguageModel
from skill_trainer.monitors import Watched, best_step, look
from skill_trainer.monitors.best import worst_retention
from skill_trainer.parallel import Layout, Replicated, gathered
from skill_trainer.prompts import student_messages
from skill_trainer.step_report import StepReport
from skill_trainer.steps.drift import Answers
from skill_trainer.steps.measure import run_answerer
from skill_trainer.steps.probe import make_probe, probe_places, probe_suites, some_scores, steps_between
from skill_trainer.steps.workplace import Workplace
from skill_trainer.teacher import Ema, Teacher


@dataclass(frozen=True, slots=True)
class Fitted:
    """A run after its training, the model being in its best state."""

    history: tuple[StepReport, ...]
    step: int
    """Whose weights the model has."""

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All that was seen, in the order of the steps."""
        return all_alarms(self.history)


def all_alarms(history: Sequence[StepReport]) -> tuple[Alarm, ...]:
    """Returns the alarms of all steps."""
    return tuple(alarm for report in history for alarm in report.alarms or ())


class Watch:
    """Looks at each step of a run of `total` steps, and changes the last report of its history only."""

    def __init__(
        self, work: Workplace, model: LanguageModel, suites: Sequence[Suite], before: Mapping[str, SuiteScores],
        total: int, *, answers: Answers, teacher: Teacher | None = None, layout: Layout | None = None,
    ) -> None:  # fmt: skip
        """Takes the suites with the new skill's first, the parent's scores on them, and some of its answers.

        `layout` is that of the model where it is in training.
        """
        self._answers, self._teacher = answers, teacher if isinstance(teacher, Ema) else None
        self._layout = layout or Replicated(work.crew)
        self._work, self._model, self._total = work, model, total
        places = probe_places(suites, work.config.gates.monitors.questions)
        self._suites, self._before = probe_suites(suites, places), some_scores(before, places)
        self._every = steps_between(work.config, total)
        self._parent = make_probe(self._before, self._before)
        self._best = work.folder / "best"

    def look(self, history: list[StepReport]) -> None:
        """Asks the probe where one is due, and raises alarms; an early end is probed, too.

        Raises:
            Preempted: in the midst of a probe; `history` is as it was, to be looked at again.
        """
        report = history[-1]
        looked = self._alarmed(history, self._ask(report) if self._is_due(report.step) else report)
        if is_stopped(looked) and not looked.probe and 0 < self._every < report.step:
            looked = self._alarmed(history, self._ask(report))
        history[-1] = looked
        self._tell(history)
        if looked.probe and self._best_step(history) == looked.step:
            self._keep()

    def resume(self, saved: Path, history: list[StepReport]) -> None:
        """Takes the best state's weights from a checkpoint, and looks where an attempt was stopped before it could."""
        best = self._best_step(history)
        if best == history[-1].step:
            self._keep()
        elif best is not None:
            self._work.crew.on_each_machine(lambda: take_best(saved, self._best))
        if history[-1].alarms is None:
            self.look(history)

    def best_weights(self, history: Sequence[StepReport]) -> Path | None:
        """Returns the folder of the best state's weights, None where that is the present state or none was probed."""
        return None if self._best_step(history) in {None, history[-1].step} else self._best

    def to_best(self, history: Sequence[StepReport]) -> Fitted:
        """Brings the model to the best state; it must be whole again in every process."""
        if weights := self.best_weights(history):
            self._work.crew.each(partial(load_weights, weights, self._model))
        step = self._best_step(history)
        return Fitted(tuple(history), history[-1].step if step is None else step)

    def _is_due(self, step: int) -> bool:
        return self._every > 0 and (step % self._every == 0 or step == self._total)

    def _ask(self, report: StepReport) -> StepReport:
        start = time.perf_counter()
        with self._layout.gathered():
            scores = score(self._suites, run_answerer(self._work, self._model, student_messages))
            drift = self._answers.drift(self._model, self._work.crew)
            # All processes read all of it: the teacher's weights lie over them, and come together layer by layer.
            followed = self._answers.drift(self._teacher.model) if self._teacher else None
        # The first one's verdict holds in every process: a grader that gives up after a second need not agree.
        probe = self._work.crew.first(lambda: make_probe(self._before, scores, drift=drift, teacher_drift=followed))
        return replace(report, probe=probe, seconds={**report.seconds, "probe": time.perf_counter() - start})

    def _alarmed(self, history: Sequence[StepReport], report: StepReport) -> StepReport:
        return replace(report, alarms=look(self._watched([*history[:-1], report])))

    def _best_step(self, history: Sequence[StepReport]) -> int | None:
        return best_step(self._watched(history))

    def _watched(self, history: Sequence[StepReport]) -> Watched:
        config = self._work.config
        return Watched(config.method, config.gates, self._suites[0].name, self._parent, history)

    def _keep(self) -> None:
        crew, new = self._work.crew, self._best.with_name("best-new")
        weights, rank = self._model.trained_parameters(), crew.rank
        if crew.machines > 1:  # they share no files, and each will want all of it
            weights, rank = gathered(weights, keep=crew.leads), int(not crew.leads)
        crew.each(partial(save_weights, new, weights, rank=rank))

        def replace_old() -> None:
            shutil.rmtree(self._best, ignore_errors=True)  # a checkpoint that is being uploaded has its own links
            new.replace(self._best)

        crew.on_each_machine(replace_old)

    def _tell(self, history: Sequence[StepReport]) -> None:
        news: dict[str, object] = {"alarms": alarms} if (alarms := all_alarms(history)) else {}
        if probe := history[-1].probe:
            watched = self._watched(history)
            news["seconds"] = {"probe": history[-1].seconds["probe"]}
            news |= {"drift": probe.drift, "teacher_drift": probe.teacher_drift}
            news["scores"] = {
                "probe_new_skill": probe.scores()[watched.skill], "probe_retention": worst_retention(watched, probe),
            }  # fmt: skip
        if news:
            self._work.tell(**news)


def is_stopped(report: StepReport) -> bool:
    """Returns whether a monitor has ended training at this step."""
    return any(alarm.action is Action.STOP for alarm in report.alarms or ())


def alarms_at_end(
    work: Workplace, fitted: Fitted, suites: Sequence[Suite], before: Mapping[str, SuiteScores],
    after: Mapping[str, SuiteScores],
) -> tuple[Alarm, ...]:  # fmt: skip
    """Returns what the whole evaluation after training shows that no probe has shown."""
    last = replace(fitted.history[-1], probe=make_probe(before, after))
    reports = [*fitted.history[:-1], last]
    parent = make_probe(before, before)
    watched = Watched(work.config.method, work.config.gates, suites[0].name, parent, reports, at_end=True)
    return look(watched)
