"""Everything that a run reads before it touches weights: data, suites, and the identity of what it is going to make."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

from skill_contract.manifest import Manifest
from skill_contract.model import ContractError
from skill_contract.spec import Method, Rehearsal
from skill_contract.step import TrainConfig
from skill_trainer.data import Record, check_records, data_digest, read_records, warnings_of_suites
from skill_trainer.errors import ConfigInvalid
from skill_trainer.evaluate import Suite

_SKILL_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Inputs:
    train: tuple[Record, ...]
    held_out: Suite
    retention: tuple[Suite, ...]
    """The user's own."""
    warnings: tuple[str, ...]
    rehearsed: tuple[Record, ...] = ()
    """Training records of earlier skills, taught again."""
    share: float = 0.0
    """Of each batch that is rehearsed."""

    @cached_property
    def data_digest(self) -> str:
        """Hash of all records and of the graders they are judged by."""
        suites = [self.held_out, *self.retention]
        graders = json.dumps([[suite.name, suite.grader] for suite in suites])
        records = data_digest(self.train, *(suite.records for suite in suites))
        if self.rehearsed:
            records += f" {self.share} {data_digest(self.rehearsed)}"
        return "sha256:" + hashlib.sha256(f"{records} {graders}".encode()).hexdigest()


def read_inputs(config: TrainConfig) -> Inputs:
    """Returns the user's data, checked against each other.

    Raises:
        ConfigInvalid: for names that are taken or cannot be a file's.
        DataError: for data that cannot be used, or training prompts that are held-out questions, too.
        StoreError: where they cannot be read.
    """
    data, skill = config.data, config.skill.name
    if not _SKILL_NAME.fullmatch(skill):
        raise ConfigInvalid(f"skill.name: {skill!r} names a file of the version: use letters, digits, _, - and dots")
    names = [suite.name for suite in data.retention]
    if len({skill, *names}) <= len(names):
        raise ConfigInvalid(
            f"data.retention: names {names} must differ from each other and from the skill's, {skill!r}"
        )
    train = read_records(data.train, "train")
    held_out = Suite(
        skill, tuple(read_records(data.held_out.uri, "evaluation", data.held_out.grader)), data.held_out.grader
    )
    retention = tuple(
        Suite(suite.name, tuple(read_records(suite.uri, "evaluation", suite.grader)), suite.grader)
        for suite in data.retention
    )
    again = read_rehearsal(data.rehearsal)
    warnings = check_records([*train, *again], held_out.records, {suite.name: suite.records for suite in retention})
    share = data.rehearsal.share if data.rehearsal else 0.0
    return Inputs(tuple(train), held_out, retention, tuple(warnings), again, share)


def read_rehearsal(rehearsal: Rehearsal | None) -> tuple[Record, ...]:
    """Returns the records of all files that are rehearsed; raises DataError and StoreError as `read_inputs` does."""
    uris = rehearsal.uris if rehearsal else ()
    return tuple(record for uri in uris for record in read_records(uri, "train"))


def inherited_suites(stored: Mapping[str, bytes], inputs: Inputs) -> tuple[Suite, ...]:
    """Returns the suites of all earlier skills as the parent's version has them, apart from what is asked anew.

    A skill that is taught again keeps those of its old questions that the new held-out data do not repeat, under the
    name `<skill>@before`: there, a new answer may be the whole point.
    """
    taken = {suite.name for suite in inputs.retention}
    suites = []
    for name, content in sorted(stored.items()):
        suite = Suite.decode(name, content)
        if name == inputs.held_out.name:
            asked = {record.question for record in inputs.held_out.records}
            kept = tuple(record for record in suite.records if record.question not in asked)
            suite = Suite(f"{name}@before", kept, suite.grader)
        elif name in taken:
            suite = Suite(f"{name}@before", suite.records, suite.grader)
        if suite.records:
            suites.append(suite)
    return tuple(suites)


def with_inherited(inputs: Inputs, inherited: Sequence[Suite]) -> Inputs:
    """Returns the inputs with what is to be said of the inherited suites beside the training data."""
    suites = {suite.name: suite.records for suite in inherited}
    found = warnings_of_suites([*inputs.train, *inputs.rehearsed], suites)
    return replace(inputs, warnings=(*inputs.warnings, *found))


def suite_to_store(stored: Mapping[str, bytes], held_out: Suite) -> bytes:
    """Returns this skill's suite for its version; where it was taught before, with the old questions not repeated."""
    if held_out.name not in stored:
        return held_out.encode()
    asked = {record.question for record in held_out.records}
    old = Suite.decode(held_out.name, stored[held_out.name])
    kept = [record for record in old.records if record.question not in asked]
    return Suite(held_out.name, tuple(_renamed(kept, held_out.records)), old.grader).encode() + held_out.encode()


def _renamed(old: Sequence[Record], new: Sequence[Record]) -> Iterator[Record]:
    """Yields the old records with ids that the new ones have not: those named by their line always collide."""
    taken = {record.id for record in new} | {record.id for record in old}
    newest = {record.id for record in new}
    for record in old:
        name = record.id
        if name in newest:
            name = next(other for number in count(1) if (other := f"{record.id}@before-{number}") not in taken)
            taken.add(name)
        yield replace(record, id=name)


def is_same_update(config: TrainConfig, inputs: Inputs, manifest: Manifest) -> bool:
    """Returns whether a version was made of the same data, by the same method, for the same skill.

    Field by field and not by digest: what the method has got since then stands at its default in an older manifest.
    """
    if (manifest.skill, manifest.data_digest) != (config.skill.name, inputs.data_digest):
        return False
    try:
        return Method.parse(manifest.method) == config.method
    except ContractError:  # made by a newer version, with fields that this one does not know
        return False


def content_digest(config: TrainConfig, inputs: Inputs, parent_digest: str) -> str:
    """Returns `sha256:<hex>` of parent, data, method and skill as this version writes them: for the record."""
    content = [parent_digest, inputs.data_digest, config.method.dump(), config.skill.name]
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
