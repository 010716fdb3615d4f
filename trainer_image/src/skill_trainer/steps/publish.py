"""A trained model becomes a version: a plain Hugging Face directory with its proof and its report in `.skill/`."""

from __future__ import annotations

import platform
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from skill_contract.adapters import OWN
from skill_contract.evaluation import Action, Evaluation, Verdict
from skill_contract.manifest import Manifest, VersionRef
from skill_trainer.inherited import has_adapters, inherit
from skill_trainer.model import LanguageModel
from skill_trainer.prompts import template_digest
from skill_trainer.report import REPORTS, DataSet, Mark, RunReport, SideBySide, StepPoint, write_report
from skill_trainer.step_report import StepReport
from skill_trainer.steps.aside import Aside
from skill_trainer.steps.drift import ANSWERS
from skill_trainer.steps.golden import golden_set
from skill_trainer.steps.ground import Ground
from skill_trainer.steps.inputs import content_digest, suite_to_store
from skill_trainer.steps.measure import Measurement
from skill_trainer.steps.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was scored, published or not, with everything about it but its weights."""

    ground: Ground
    evaluation: Evaluation
    data: tuple[DataSet, ...]
    rows: tuple[SideBySide, ...]
    history: tuple[StepReport, ...]
    """Empty where training was refused."""
    seconds: dict[str, float]
    """Of measuring, by when."""
    warnings: tuple[str, ...] = ()
    """Of the run itself: too short, or blind."""
    aside: Aside = field(default_factory=Aside)
    """What was measured beside the gates; nothing where training was refused."""


def publish(
    work: Workplace, candidate: Candidate, model: LanguageModel, before: Measurement, after: Measurement
) -> VersionRef:
    """Writes the version and returns its reference. The head stays: promotion moves it.

    Idempotent: all that could differ between two attempts (report, golden answers, time) is kept in the run's folder.
    """
    ground, limit = candidate.ground, work.config.method.rollout.max_new_tokens

    def make_golden() -> bytes:
        golden = golden_set(model, ground.suites, before, after, max_new_tokens=limit, between=work.between_answers)
        return golden.dump_json().encode()

    golden = work.kept("golden.json", make_golden)
    put_report(work, candidate, outcome="Published")
    folder = work.folder / "candidate"
    model.save(folder, ground.parent)
    spec = work.config.method.adaptation.adapter
    if spec and spec.publish == "Adapter":
        assert model.adapter
        model.adapter.save(folder / OWN, ground.origin.parent.version)
        if has_adapters(ground.manifest):
            inherit(ground.parent, folder)
    extra = folder / ".skill"
    (extra / "suites").mkdir(parents=True)
    stored = ground.stored_suites
    suites = {**stored, work.config.skill.name: suite_to_store(stored, ground.inputs.held_out)}
    for name, content in suites.items():
        (extra / "suites" / f"{name}.jsonl").write_bytes(content)
    (extra / "golden.json").write_bytes(golden)
    if (first := candidate.aside.first) and first.said:
        (extra / ANSWERS).write_text(first.dump_json())
    (extra / "eval.json").write_text(candidate.evaluation.dump_json())
    for name in REPORTS:
        (extra / name).write_bytes(work.run.get(name) or b"")
    work.tell()
    return work.repository.publish(folder, _manifest(work, candidate), lambda *_: work.tell())


def put_report(work: Workplace, candidate: Candidate, *, outcome: str) -> None:
    """Stores the report in the run's folder, published or not; a second attempt leaves the first one's."""
    if work.run.get(REPORTS[-1]) is not None:
        return
    with tempfile.TemporaryDirectory(dir=work.folder) as folder:
        write_report(Path(folder), _report(work, candidate, outcome))
        for name in REPORTS:
            work.run.keep(name, (Path(folder) / name).read_bytes())


def _manifest(work: Workplace, candidate: Candidate) -> Manifest:
    config, ground, parent = work.config, candidate.ground, candidate.ground.manifest
    return Manifest(
        files=(),
        sequence=parent.sequence + 1,
        parent=ground.origin.parent,
        base=parent.base,
        skill=config.skill.name,
        skills=(*(skill for skill in parent.skills if skill != config.skill.name), config.skill.name),
        update=config.update,
        method=config.method.dump(),
        content_digest=content_digest(config, ground.inputs, ground.origin.parent.digest),
        data_digest=ground.inputs.data_digest,
        seed=config.method.seed,
        code_version=version("skillupdate"),
        evaluation=candidate.evaluation,
        created=ground.origin.created,
    )


def _report(work: Workplace, candidate: Candidate, outcome: str) -> RunReport:
    config, ground = work.config, candidate.ground
    prompt = config.method.sdft.prompt
    return RunReport(
        skill=config.skill.name,
        description=config.skill.description,
        created=ground.origin.created,
        parent=ground.origin.parent,
        outcome=outcome,
        evaluation=candidate.evaluation,
        gates=config.gates,
        settings=config.dump(),
        digests={
            "parent": ground.origin.parent.digest,
            "data": ground.inputs.data_digest,
            "content": content_digest(config, ground.inputs, ground.origin.parent.digest),
            "prompt template": template_digest(prompt.template, prompt.text),
        },
        code_version=version("skillupdate"),
        environment=_environment(work.device),
        seed=config.method.seed,
        series=tuple(_series(candidate.history, is_divergence=config.method.type == "SDFT")),
        chosen_step=_earlier_step(candidate),
        marks=tuple(
            Mark(step=each.step, monitor=each.signature, message=each.message, stopped=each.action is Action.STOP)
            for each in candidate.evaluation.alarms
        ),
        data=candidate.data,
        answers=candidate.rows,
        weights=candidate.aside.moved,
        drift=candidate.aside.drift,
        shown_again=candidate.aside.shown_again,
        time_split=_time_split(candidate.history, candidate.seconds),
        warnings=_warnings(work, candidate),
    )


def _earlier_step(candidate: Candidate) -> int | None:
    step = candidate.evaluation.step
    return step if candidate.history and step != candidate.history[-1].step else None


def _warnings(work: Workplace, candidate: Candidate) -> tuple[str, ...]:
    warnings, gain = (*candidate.warnings, *candidate.ground.inputs.warnings), candidate.evaluation.in_context_gain
    if gain and gain.verdict is not Verdict.PASSED and work.config.gates.in_context_gain.mode == "Warn":
        return (*warnings, f"in-context gain {gain.verdict}: {gain.reason}")
    return warnings


def _series(history: Sequence[StepReport], *, is_divergence: bool) -> Iterator[StepPoint]:
    thinks = any(report.thought_share for report in history)
    for report in history:
        yield _point(report, is_divergence=is_divergence, thinks=thinks)


def _point(report: StepReport, *, is_divergence: bool, thinks: bool) -> StepPoint:
    return StepPoint(
        distinct_share=report.distinct_share,
        top_share=report.top_share,
        thought_share=report.thought_share if thinks else None,
        sampler_gap=report.sampler_gap,
        step=report.step, loss=report.loss, divergence=report.loss if is_divergence else None, entropy=report.entropy,
        completion_tokens=report.mean_length, cut_share=report.cut_share, learning_rate=report.learning_rate,
        gradient_norm=report.gradient_norm, seconds=report.seconds,
        scores=report.probe.scores() if report.probe else {},
        drift=report.probe.drift if report.probe else None,
        teacher_drift=report.probe.teacher_drift if report.probe else None,
    )  # fmt: skip


def _time_split(history: Sequence[StepReport], seconds: dict[str, float]) -> dict[str, float]:
    parts: Counter[str] = Counter()
    for report in history:
        parts.update(report.seconds)
    scores = {f"scores {when}": spent for when, spent in seconds.items()}
    return {**dict(parts), **scores}


def _environment(device: torch.device) -> dict[str, str]:
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({where})",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
