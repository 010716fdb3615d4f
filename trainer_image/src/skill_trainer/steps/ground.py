"""What a run stands on: its parent, fixed by the first attempt, the user's data and all suites. Read, never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skill_contract.manifest import Manifest, VersionRef
from skill_contract.model import Document
from skill_trainer.errors import ConfigInvalid
from skill_trainer.evaluate import Suite
from skill_trainer.steps.check import import_or_head, require_pinned, require_supported
from skill_trainer.steps.inputs import Inputs, inherited_suites, read_inputs
from skill_trainer.steps.workplace import Workplace


class Origin(Document):
    """What a run began from, fixed by its first attempt: the head may move while it is away."""

    parent: VersionRef
    settings: str
    """What must not change between two attempts, as JSON."""
    created: str
    """RFC 3339, UTC; the time of the version, so that publishing twice makes one."""


@dataclass(frozen=True, slots=True)
class Ground:
    """All that is known before the first question is asked."""

    origin: Origin
    inputs: Inputs
    parent: Path
    manifest: Manifest
    stored_suites: dict[str, bytes]
    suites: tuple[Suite, ...]
    """The new skill's first."""


def prepare(work: Workplace) -> Ground:
    """Returns the ground, the parent's files downloaded.

    Raises:
        ConfigInvalid: for settings that are not supported, or not those that the run was begun with.
        ParentMismatch, DataError, StoreError: as `check` does.
    """
    config = work.config
    require_supported(config)
    origin = Origin.parse_json(work.kept("origin.json", lambda: _new_origin(work).dump_json().encode()))
    if origin.settings != _settings(work):
        raise ConfigInvalid(
            f"run {config.update.uid} was begun with other settings ({origin.settings:.200}…): use another uid"
        )
    inputs = read_inputs(config)
    parent = work.folder / "parent"
    manifest = work.repository.download(origin.parent, parent, lambda *_: work.tell())
    work.stop.between("loading the parent")
    stored = {path.stem: path.read_bytes() for path in sorted((parent / ".skill" / "suites").glob("*.jsonl"))}
    suites = (inputs.held_out, *inputs.retention, *inherited_suites(stored, inputs))
    return Ground(origin, inputs, parent, manifest, stored, suites)


def _new_origin(work: Workplace) -> Origin:
    parent = import_or_head(work.config, work.repository)
    require_pinned(work.config, parent)
    return Origin(parent=parent, settings=_settings(work), created=datetime.now(UTC).isoformat(timespec="seconds"))


def _settings(work: Workplace) -> str:
    config = work.config
    return json.dumps(
        [config.skill.name, config.data.dump(), config.method.dump(), config.gates.dump()], sort_keys=True
    )
