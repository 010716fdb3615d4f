"""What a run stands on: its parent, fixed by the first attempt, the user's data and all suites. Read, never changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skill_contract.manifest import Manifest, VersionRef
from skill_contract.model import ContractError, Document
from skill_contract.spec import Data, Gates, Method
from skill_trainer.errors import ConfigInvalid
from skill_trainer.evaluate import Suite
from skill_trainer.steps.check import import_or_head, require_pinned, require_supported
from skill_trainer.steps.inputs import Inputs, inherited_suites, read_inputs, with_inherited
from skill_trainer.steps.workplace import Workplace


class Origin(Document):
    """What a run began from, fixed by its first attempt: the head may move while it is away."""

    parent: VersionRef
    settings: str
    """What must not change between two attempts, as JSON."""
    data_digest: str
    """Nor must what lies at the addresses that the settings name."""
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
        ConfigInvalid: for settings that are not supported, or settings or data that the run was not begun with.
        ParentMismatch, DataError, StoreError: as `check` does.
    """
    config = work.config
    require_supported(config)
    inputs = read_inputs(config)
    origin = Origin.parse_json(work.kept("origin.json", lambda: _new_origin(work, inputs).dump_json().encode()))
    _require_unchanged(work, origin, inputs)
    parent = work.folder / "parent"
    manifest = work.repository.download(origin.parent, parent, lambda *_: work.tell())
    work.stop.between("loading the parent")
    stored = {path.stem: path.read_bytes() for path in sorted((parent / ".skill" / "suites").glob("*.jsonl"))}
    inherited = inherited_suites(stored, inputs)
    suites = (inputs.held_out, *inputs.retention, *inherited)
    return Ground(origin, with_inherited(inputs, inherited), parent, manifest, stored, suites)


def _new_origin(work: Workplace, inputs: Inputs) -> Origin:
    parent = import_or_head(work.config, work.repository)
    require_pinned(work.config, parent)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Origin(parent=parent, settings=_settings(work), data_digest=inputs.data_digest, created=created)


def _require_unchanged(work: Workplace, origin: Origin, inputs: Inputs) -> None:
    uid = work.config.update.uid
    if _read_settings(origin.settings) != _read_settings(_settings(work)):
        raise ConfigInvalid(f"run {uid} was begun with other settings ({origin.settings:.200}…): use another uid")
    if origin.data_digest != inputs.data_digest:
        raise ConfigInvalid(
            f"the data of run {uid} were changed since it was begun ({origin.data_digest:.19}…, now "
            f"{inputs.data_digest:.19}…): put them back, or start another run, with data under names of their own"
        )


def _settings(work: Workplace) -> str:
    config = work.config
    return json.dumps(
        [config.skill.name, config.data.dump(), config.method.dump(), config.gates.dump()], sort_keys=True
    )


def _read_settings(text: str) -> tuple[str, Data, Method, Gates] | None:
    """Returns the settings in a text, fields that came later at their defaults; None where one is not known any more.

    So a run that an older version began goes on under a newer one.
    """
    name, data, method, gates = json.loads(text)
    try:
        return name, Data.parse(data), Method.parse(method), Gates.parse(gates)
    except ContractError:
        return None
