"""What is compared, as one YAML file. Pure apart from reading that file; trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from skill_contract.command_line import assign
from skill_contract.model import ContractError, Document
from skill_contract.spec import HeldOut, Suite
from skill_contract.step import TrainConfig

BUILT_IN = {
    "sdft-ema": (),
    "sdft-frozen": ("method.sdft.teacher.weights=Frozen",),
    "sft": ("method.type=SFT",),
    "reverse-kl": ("method.sdft.divergence=ReverseKL",),
    "jsd": ("method.sdft.divergence=JSD",),
    "paper-template": ("method.sdft.prompt.template=Paper",),
    "shuffled-demonstration": ("method.sdft.prompt.demonstration=Shuffled",),
}
"""Variants that a plan may name without writing them down: the defaults, and one change each."""


class Variant(Document):
    """A name and the few settings in which it differs."""

    name: str
    settings: tuple[str, ...] = ()
    """`PATH=VALUE`, as --set takes them."""
    rehearsal: float = Field(0.0, ge=0, lt=1)
    """The share of each batch that teaches again: the plan's `rehearsed`, in a sequence also the skills before."""


class SkillData(Document):
    """One skill with its data, as a SkillUpdate has them."""

    name: str
    train: str
    held_out: HeldOut


class Plan(Document):
    """All runs of a comparison: every variant teaches every skill with every seed."""

    skills: tuple[SkillData, ...] = Field(min_length=1)
    retention: tuple[Suite, ...] = Field(min_length=1)
    """What the model can do already and must not forget."""
    rehearsed: tuple[str, ...] = ()
    """Training data of what it can do already, for variants that rehearse."""
    variants: tuple[Variant, ...] = Field(min_length=1)
    """The first is the one that the others are measured against."""
    seeds: tuple[int, ...] = Field((17, 18, 19), min_length=1)
    settings: tuple[str, ...] = ()
    """Of every run, before the variant's own."""
    sequence: bool = False
    """Teach the skills one after the other, each from the weights that the one before has left."""

    @field_validator("variants", mode="before")
    @classmethod
    def _named(cls, variants: Any) -> Any:
        if not isinstance(variants, list):
            return variants
        for name in variants:
            if isinstance(name, str) and name not in BUILT_IN:
                raise ValueError(
                    f"{name!r} is no built-in variant ({', '.join(BUILT_IN)}): write {{name: …, settings: […]}}"
                )
        return [{"name": each, "settings": BUILT_IN[each]} if isinstance(each, str) else each for each in variants]

    @model_validator(mode="after")
    def _different(self) -> Self:
        suites = [*(skill.name for skill in self.skills), *(suite.name for suite in self.retention)]
        for what, names in (
            ("skills and retention suites", suites),
            ("variants", [variant.name for variant in self.variants]),
            ("seeds", self.seeds),
        ):
            if repeated := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{what} need different names, but {repeated[0]!r} stands there twice: rename one")
        return self

    def located(self, folder: Path) -> Plan:
        """Returns the plan with the relative paths of its data taken from `folder`."""

        def located(uri: str) -> str:
            return uri if "://" in uri else str((folder / uri).resolve())

        skills = [
            skill.model_copy(update={
                "train": located(skill.train),
                "held_out": skill.held_out.model_copy(update={"uri": located(skill.held_out.uri)}),
            })
            for skill in self.skills
        ]  # fmt: skip
        retention = [suite.model_copy(update={"uri": located(suite.uri)}) for suite in self.retention]
        rehearsed = tuple(located(uri) for uri in self.rehearsed)
        return self.model_copy(update={"skills": tuple(skills), "retention": tuple(retention), "rehearsed": rehearsed})

    def only(self, names: Iterable[str]) -> Plan:
        """Returns the plan with the variants of these names, all of them where there are none.

        Raises:
            ContractError: for a name that the plan has not.
        """
        wanted = list(names)
        known = [variant.name for variant in self.variants]
        for name in wanted:
            if name not in known:
                raise ContractError(f"--only {name}: the plan has the variants {', '.join(known)}")
        return self.model_copy(
            update={"variants": tuple(each for each in self.variants if not wanted or each.name in wanted)}
        )


def read_plan(path: Path) -> Plan:
    """Returns the plan in a YAML file, its paths relative to the file's folder.

    Raises:
        ContractError: where there is no such file, it is no YAML, or it is no plan; with all problems.
    """
    if not path.is_file():
        raise ContractError(f"{path}: there is no such plan")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    try:
        return Plan.parse(document).located(path.resolve().parent)
    except ContractError as error:
        raise ContractError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def config_of(
    plan: Plan, model: Path, skill: SkillData, variant: Variant, seed: int, *, earlier: Sequence[SkillData] = ()
) -> TrainConfig:
    """Returns the configuration of one run; of a sequence, `earlier` skills are what it may rehearse.

    Raises:
        ContractError: for settings that do not exist.
    """
    name = f"{variant.name}/{skill.name}/{seed}"
    document: dict[str, Any] = {
        "update": {"namespace": "local", "name": skill.name, "uid": name},
        "model": {"uri": str(model)},
        "skill": {"name": skill.name},
        "data": {
            "train": skill.train,
            "heldOut": skill.held_out.dump(),
            "retention": [suite.dump() for suite in plan.retention],
        },
        "training": {"gpusPerNode": 0},
    }
    again = [*plan.rehearsed, *(each.train for each in earlier)]
    if variant.rehearsal and again:
        document["data"]["rehearsal"] = {"uris": again, "share": variant.rehearsal}
    for text in [*plan.settings, *variant.settings]:
        if not text.startswith(("method.", "gates.")):
            raise ContractError(f"variant {variant.name}: {text}: only method.… and gates.… are settings of a run")
        assign(document, text)
    assign(document, f"method.seed={seed}")
    try:
        return TrainConfig.parse(document)
    except ContractError as error:
        raise ContractError(f"variant {variant.name}: {error}") from error


def chains(plan: Plan, model: Path) -> list[tuple[TrainConfig, ...]]:
    """Returns the runs in their order; those in one tuple are trained one after the other, each from the last.

    Seed by seed, so that a comparison that is stopped early has something of every variant.

    Raises:
        ContractError: for settings that do not exist, and a rehearsal of nothing.
    """
    for variant in plan.variants:
        if variant.rehearsal and not plan.rehearsed and not plan.sequence:
            raise ContractError(
                f"variant {variant.name}: rehearsal {variant.rehearsal}: there is nothing to rehearse: name training "
                "data in the plan's rehearsed, or teach the skills in a sequence"
            )
    rows: list[Sequence[SkillData]] = [plan.skills] if plan.sequence else [(skill,) for skill in plan.skills]
    return [
        tuple(config_of(plan, model, skill, variant, seed, earlier=row[:place]) for place, skill in enumerate(row))
        for seed in plan.seeds
        for row in rows
        for variant in plan.variants
    ]
