"""What another update has published of the very same, and nobody serves: gone on with, not trained once more.

An update whose record went with its cluster, or whose rollout found no room, has left its version in the repository.
"""

from __future__ import annotations

import json
import logging

from skill_contract.evaluation import Verdict
from skill_contract.manifest import Manifest, VersionRef
from skill_contract.model import ContractError
from skill_contract.spec import Gates
from skill_contract.step import TrainConfig
from skill_store.catalogue import Catalogue
from skill_store.errors import StoreError
from skill_store.repository import Repository
from skill_trainer.report import REPORTS
from skill_trainer.steps.inputs import Inputs, is_same_update

_log = logging.getLogger(__name__)


def find_published(
    config: TrainConfig, inputs: Inputs, repository: Repository, parent: VersionRef
) -> tuple[VersionRef, Manifest] | None:
    """Returns the newest version made from `parent` as this update would make one, past gates like its own; or None.

    Every byte of it is read before: what is damaged is made anew. Its report becomes this run's, too.
    """
    folders = Catalogue.read(repository.uri).children.get(parent.version, ())
    found = [(each.ref, each.manifest) for each in folders if each.ref and each.manifest and each.stands]
    for ref, manifest in sorted(found, key=lambda each: each[1].created, reverse=True):
        same = manifest.parent == parent and is_same_update(config, inputs, manifest)
        if same and _passed(config.gates, manifest, ref, repository) and _is_whole(repository, ref):
            for name in REPORTS:
                repository.run(config.update.uid).keep(name, repository.read(ref, f".skill/{name}"))
            return ref, manifest
    return None


def _passed(gates: Gates, manifest: Manifest, ref: VersionRef, repository: Repository) -> bool:
    """Returns whether a version has passed these gates, as its report says; who approves it is asked anew."""
    if manifest.evaluation is None or manifest.evaluation.verdict is not Verdict.PASSED:
        return False
    try:
        asked = Gates.parse(json.loads(repository.read(ref, f".skill/{REPORTS[0]}"))["gates"])
    except (StoreError, ContractError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, StoreError) and error.retriable:
            raise
        return False
    return asked.model_copy(update={"approval": gates.approval}) == gates


def _is_whole(repository: Repository, ref: VersionRef) -> bool:
    try:
        repository.verify(ref)
    except StoreError as error:
        if error.retriable:
            raise
        _log.warning("%s is the same, and damaged: %s", ref.version, error.message)
        return False
    return True
