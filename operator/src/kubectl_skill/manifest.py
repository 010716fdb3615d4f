"""A SkillUpdate written from what a person says on the command line, and checked before anybody applies it.

Pure but for reading the data: `check_data` uses the trainer's own checks where `skillupdate[trainer]` is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_skill.errors import PluginError, UsageError
from skill_contract.command_line import assign, json_or_text
from skill_contract.model import ContractError
from skill_contract.spec import SkillUpdateSpec
from skill_operator.api import API_VERSION, KIND
from skill_operator.targets.read import KINDS


class DataProblemError(PluginError):
    """The data cannot be used as they are."""


@dataclass(frozen=True)
class DataFile:
    """A file of records: here, or in a store already."""

    given: str
    """A path, or a URI."""
    folder: str
    """The URI of the folder in the store that local files will lie in; empty for none."""
    grader: str = ""
    """Empty for training data."""

    @property
    def is_local(self) -> bool:
        return "://" not in self.given

    @property
    def uri(self) -> str:
        """Where the update's pods find it.

        Raises:
            UsageError: it is a local file, and nobody said where it will lie.
        """
        if not self.is_local:
            return self.given
        if not self.folder:
            raise UsageError(
                f"{self.given} is a file on this machine, which pods cannot read: say with --at s3://bucket/folder "
                "where it will lie (--upload brings it there)"
            )
        return f"{self.folder.rstrip('/')}/{Path(self.given).name}"


@dataclass(frozen=True)
class Wish:
    """What a person wants to be written."""

    name: str
    model: str
    train: DataFile
    held_out: DataFile
    retention: Mapping[str, DataFile] = field(default_factory=dict)
    skill: str = ""
    description: str = ""
    base: str = ""
    secret: str = ""
    endpoint: str = ""
    target: str = ""
    """`name`, or `Kind/name`."""
    settings: tuple[str, ...] = ()
    """`path=value` below spec."""

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (self.train, self.held_out, *self.retention.values())


def manifest(wish: Wish, namespace: str | None) -> dict[str, Any]:
    """Returns the SkillUpdate, without anything that is a default anyway.

    Raises:
        UsageError: it would be none; the message has the field.
    """
    model = {"uri": wish.model} | ({"base": wish.base} if wish.base else {})
    spec: dict[str, Any] = {"model": model}
    spec["skill"] = {"name": wish.skill or wish.name}
    if wish.description:
        spec["skill"]["description"] = wish.description
    spec["data"] = {"train": wish.train.uri, "heldOut": _suite(wish.held_out)}
    if wish.retention:
        spec["data"]["retention"] = [{"name": name} | _suite(file) for name, file in wish.retention.items()]
    storage: dict[str, Any] = {"secretRef": {"name": wish.secret}} if wish.secret else {}
    storage |= {"endpoint": wish.endpoint} if wish.endpoint else {}
    if storage:
        spec["storage"] = storage
    if wish.target:
        spec["serving"] = {"targetRef": _target(wish.target)}
    for text in wish.settings:
        try:
            assign(spec, text, _value)
        except ContractError as error:
            raise UsageError(f"--set {error}") from error
    try:
        SkillUpdateSpec.parse(spec)
    except ContractError as error:
        raise UsageError(f"that would be no SkillUpdate: {error}") from error
    metadata = {"name": wish.name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _suite(file: DataFile) -> dict[str, str]:
    return {"uri": file.uri} | ({"grader": file.grader} if file.grader else {})


def _target(text: str) -> dict[str, str]:
    kind, found, name = text.rpartition("/")
    if not found or kind == "Deployment":
        return {"name": name}
    known = {each.name.lower(): each for each in KINDS}.get(kind.lower())
    if known is None:
        kinds = ", ".join(each.name for each in KINDS)
        raise UsageError(f"--target {text}: {kind} is none of {kinds}: write KIND/NAME, or the NAME of a Deployment")
    return {"apiVersion": known.api_version, "kind": known.name, "name": name}


def _value(text: str) -> Any:
    """A decimal stays text, as the Kubernetes API wants it."""
    value = json_or_text(text)
    return text if isinstance(value, float) else value


def check_data(wish: Wish) -> list[str] | None:
    """Returns what the trainer's checks note about those data that are on this machine; None: they are not installed.

    Raises:
        DataProblemError: they cannot be used; the message names file, line, field and the way out.
    """
    try:
        from skill_store.errors import StoreError  # noqa: PLC0415
        from skill_trainer.data import DataError, check_records, read_records  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    try:
        train = read_records(wish.train.given, "train") if wish.train.is_local else []
        asked = {
            file.given: read_records(file.given, "evaluation", _grader(file))
            for file in wish.files[1:]
            if file.is_local
        }
        suites = {name: asked[file.given] for name, file in wish.retention.items() if file.is_local}
        notes = check_records(train, asked.get(wish.held_out.given, []), suites)
    except (DataError, StoreError) as error:
        raise DataProblemError(f"{error.reason}: {error.message}") from error
    counts = [f"{wish.train.given}: {len(train)} records"] if wish.train.is_local else []
    counts += [f"{name}: {len(records)} questions" for name, records in asked.items()]
    return [*counts, *notes]


def _grader(file: DataFile) -> Any:
    return file.grader or "exact"


def upload(files: Iterable[DataFile]) -> list[str]:
    """Brings local files where the update looks for them, with the user's own access; returns their URIs.

    Raises:
        PluginError: the store does not take them, or what speaks to it is not installed.
    """
    try:
        from skill_store.errors import StoreError  # noqa: PLC0415
        from skill_store.objects import open_store  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise DataProblemError(
            f"--upload needs the package {missing.name}: pip install 'skillupdate[store]'"
        ) from missing
    brought = []
    try:
        for file in files:
            path = Path(file.given)
            open_store(file.folder).upload(path.name, path, lambda _: None)
            brought.append(file.uri)
    except StoreError as error:
        raise DataProblemError(f"{error.reason}: {error.message}") from error
    return brought
