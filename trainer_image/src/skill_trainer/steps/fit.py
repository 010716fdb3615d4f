"""Training with checkpoints: resumes from the newest whole one, saves as the loop asks."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from skill_contract.progress import Stage
from skill_store.errors import DigestMismatch, NotFound
from skill_trainer.checkpoint import load_series, load_state, save_state
from skill_trainer.curriculum import Curriculum
from skill_trainer.device import memory_bytes
from skill_trainer.errors import Preempted
from skill_trainer.evaluate import Suite, SuiteScores
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import make_objective
from skill_trainer.parallel import lay_out
from skill_trainer.step_report import Series, StepReport
from skill_trainer.steps.drift import Answers
from skill_trainer.steps.uploads import Uploads
from skill_trainer.steps.watch import Fitted, Watch, is_stopped
from skill_trainer.steps.workplace import Workplace

_log = logging.getLogger(__name__)


def fit(
    work: Workplace, model: LanguageModel, curriculum: Curriculum, suites: Sequence[Suite],
    before: Mapping[str, SuiteScores], *, answers: Answers, part_tokens: int, uploads: Uploads,
) -> Fitted:  # fmt: skip
    """Trains `model` in place, from the last checkpoint where there is one, and leaves it in its best state.

    Args:
        suites: what is probed during training, the new skill's first.
        before: the parent's scores on them.
        answers: some of the parent's to what is to be kept.
        part_tokens: that may go through the model at the same time.
        uploads: of the checkpoints; the last one may be on its way when this returns.

    Raises:
        Diverged, Preempted: as the loop does.
    """
    method, total, saved = work.config.method, curriculum.steps(work.config.method), work.folder / "saved"
    if method.adaptation.adapter:
        model.adapt(method.adaptation.adapter, method.seed)
    done = work.crew.first(lambda: _fetch(work, total))
    work.tell(stage=Stage.TRAINING, step=done, total=total, last_checkpoint=done or None)
    if done:
        work.crew.on_each_machine(lambda: _bring(work, done))
    history = work.crew.first(lambda: load_series(saved)) if done else []
    if _is_over(history, total) and history[-1].alarms is not None:
        load_state(saved, model, None, None)
        watch = Watch(work, model, suites, before, total, answers=answers)
        watch.resume(saved, history)
        return watch.to_best(history)
    objective = make_objective(method, model)
    layout = lay_out(work.crew, model, objective.teacher.model if objective.teacher else None)
    optimizer = make_optimizer(model)
    watch = Watch(work, model, suites, before, total, answers=answers, teacher=objective.teacher, layout=layout)
    if done:
        work.crew.each(partial(load_state, saved, model, objective.teacher, optimizer))
        watch.resume(saved, history)
    work.crew.on_each_machine(lambda: shutil.rmtree(saved, ignore_errors=True))

    def on_step(report: StepReport) -> None:
        history.append(report)
        work.tell(**_news(work, history, total))
        with contextlib.suppress(Preempted):  # the loop saves first; the next attempt asks what this one could not
            watch.look(history)

    def save(step: int) -> None:  # the history's last
        folder, machines = work.folder / "checkpoint", work.crew.machines
        best, rank = watch.best_weights(history), work.crew.rank
        uploads.wait()
        state = partial(save_state, folder, model, objective.teacher, optimizer, history, best=best, rank=rank)
        work.crew.each(state)
        if machines > 1:
            work.crew.first(lambda: work.run.begin_checkpoint(step))
        if rank == 0:
            uploads.start(partial(_upload, work, folder, total, tuple(history), machines))
        else:
            uploads.start(partial(_upload_part, work, folder, step, work.crew.machine))

    if not _is_over(history, total):  # a monitor may have ended it, looking at what was not looked at before
        try:
            train(
                model, objective, optimizer, curriculum, method, done=done, on_step=on_step, save=save, stop=work.stop,
                enough=lambda: is_stopped(history[-1]), alive=work.tell, layout=layout,
                save_every=work.config.training.checkpoint.every_steps,
                part_tokens=part_tokens,
            )  # fmt: skip
        except Preempted:
            uploads.wait()
            raise
    layout.finish()
    return watch.to_best(history)


def _is_over(history: Sequence[StepReport], total: int) -> bool:
    return bool(history) and (history[-1].step == total or is_stopped(history[-1]))


def _fetch(work: Workplace, total: int) -> int:
    """Downloads the newest checkpoint that is whole; returns its step, 0 for none."""
    for step in reversed(work.run.checkpoints()):
        if step > total:
            continue
        try:
            work.run.load_checkpoint(step, work.folder / "saved", lambda *_: work.tell())
        except (DigestMismatch, NotFound):  # an older one gives the same weights, later
            shutil.rmtree(work.folder / "saved", ignore_errors=True)
            continue
        return step
    return 0


def _bring(work: Workplace, step: int) -> None:
    """Downloads a checkpoint to a machine that does not have it yet."""
    if not (work.folder / "saved").exists():
        work.run.load_checkpoint(step, work.folder / "saved", lambda *_: work.tell())


def _upload_part(work: Workplace, folder: Path, step: int, machine: int) -> None:
    """Takes what another machine than the first has of a state to the store."""
    work.run.save_part(step, machine, folder)
    shutil.rmtree(folder)


def _upload(work: Workplace, folder: Path, total: int, history: Sequence[StepReport], machines: int) -> None:
    """Takes the state after the last step of `history` to the store; in a thread of its own, beside the next steps."""
    start, step = time.monotonic(), history[-1].step
    keep = work.config.training.checkpoint.keep
    work.run.save_checkpoint(step, folder, keep, lambda *_: work.tell(), parts=machines)
    shutil.rmtree(folder)
    lines = (json.dumps(report) for report in Series.dump_python(list(history), mode="json"))
    work.run.put("metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())
    work.tell(last_checkpoint=step, checkpoint_seconds=time.monotonic() - start)
    _log.info("saved step %d of %d, loss %.4f", step, total, history[-1].loss)


def _news(work: Workplace, history: Sequence[StepReport], total: int) -> dict[str, object]:
    report, recent = history[-1], [sum(each.seconds.values()) for each in history[-20:]]
    return {
        "step": report.step,
        "total": total,
        "eta_seconds": (total - report.step) * sum(recent) / len(recent),
        "loss": report.loss,
        "divergence": report.loss if work.config.method.type == "SDFT" else None,
        "entropy": report.entropy,
        "gradient_norm": report.gradient_norm,
        "tokens_per_second": report.tokens_answered / recent[-1],
        "memory_bytes": memory_bytes(work.device),
        "seconds": report.seconds,
    }
