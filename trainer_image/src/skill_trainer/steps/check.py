"""The check step: every mistake that can be found without the weights, found in seconds and without a GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skill_contract.manifest import Manifest, VersionRef
from skill_contract.outcome import Outcome, Result
from skill_contract.spec import Training
from skill_contract.step import Step, TrainConfig
from skill_store.repository import Repository
from skill_trainer.curriculum import Curriculum
from skill_trainer.errors import ConfigInvalid, ParentMismatch
from skill_trainer.memory import COMMON_GPU, FP32, state_numbers
from skill_trainer.model import ChatTokenizer
from skill_trainer.steps.adopt import find_published
from skill_trainer.steps.examples import make_curriculum, require_questions_fit
from skill_trainer.steps.forewarnings import forewarnings, require_loss
from skill_trainer.steps.inputs import Inputs, inherited_suites, is_same_update, read_inputs, with_inherited
from skill_trainer.steps.probe import steps_between
from skill_trainer.steps.room import memory_of, sizes

EASY_BYTES_PER_SECOND = 200e6
"""At which a pod writes to an object store without anybody's doing much for it; there are faster ones."""
NOTED = 1024
"""Characters of the warnings in the message, which is the condition's; the report has all of them."""


def check(config: TrainConfig) -> Outcome:
    """Returns `Checked` with the parent's version, or `AlreadyApplied` with the version that this update would make.

    `Adopted` has both: that version is published, and not the head. Imports the base model where the repository is
    empty; writes nothing else but the report of what it adopts.

    Raises:
        TrainerError, DataError, StoreError: for every mistake, with its reason.
    """
    require_supported(config)
    inputs = read_inputs(config)
    repository = Repository(config.model.uri)
    repository.check_conditional_writes()
    parent = import_or_head(config, repository)
    if applied := find_applied(config, inputs, repository):
        message = f"{applied.version} was made from the same parent, data, method and skill: nothing to do"
        return _answer("AlreadyApplied", message, applied, {})
    require_pinned(config, parent)
    if published := find_published(config, inputs, repository, parent):
        return _adopted(parent, *published)
    manifest = repository.manifest(parent)
    with tempfile.TemporaryDirectory() as folder:
        small_files(repository, parent, manifest, Path(folder))
        tokens = ChatTokenizer.load(Path(folder), config.method.chat_template_arguments)
        curriculum = make_curriculum(inputs, config, tokens)
        inherited = inherited_suites(repository.suites(parent), inputs)
        suites = (inputs.held_out, *inputs.retention, *inherited)
        require_questions_fit(suites, config, inputs, tokens)
        require_loss(inputs, config.method, tokens)
        inputs = with_inherited(inputs, inherited)
        details = _details(config, inputs, curriculum, manifest, Path(folder))
        late = late_checkpoint(details["checkpointBytes"], config.training)
        warnings = (*late, *forewarnings(config, inputs, curriculum, tokens), *inputs.warnings)
    earlier = f" and {_suites(len(inherited))} of earlier skills" if inherited else ""
    message = (
        f"{len(inputs.train)} training records, {len(inputs.held_out.records)} held-out questions, "
        f"{_suites(len(inputs.retention))} for retention{earlier}; {details['totalSteps']} steps from {parent.version}"
    )
    noted = f". Noted: {'; '.join(warnings)}"[:NOTED] if warnings else ""
    return _answer("Checked", message + noted, parent, {**details, "warnings": list(warnings)[:5]})


def _adopted(parent: VersionRef, published: VersionRef, manifest: Manifest) -> Outcome:
    by = f" by {manifest.update.namespace}/{manifest.update.name}" if manifest.update else ""
    message = (
        f"{published.version} was made from the same parent, data, method and skill{by} ({manifest.created}), passed "
        "the same gates and is not the head: it is adopted, nothing is trained"
    )
    answer = _answer("Adopted", message, parent, {})
    return answer.model_copy(update={"evaluation": manifest.evaluation, "published": published})


def _suites(number: int) -> str:
    return f"{number} suite{'' if number == 1 else 's'}"


def require_supported(config: TrainConfig) -> None:
    """Raises ConfigInvalid for settings that the API has and this trainer has not."""
    if config.method.adaptation.type == "Full" and config.method.adaptation.lora:
        raise ConfigInvalid("method.adaptation: with type: Full, remove lora; or write type: LoRA beside it")


def import_or_head(config: TrainConfig, repository: Repository) -> VersionRef:
    """Returns the head, which is the imported base where the repository was empty."""
    head = repository.head()
    if head:
        return head.ref
    if not config.model.base:
        raise ParentMismatch(f"{repository.uri} has no head: set model.base to a Hugging Face directory to begin with")
    return repository.import_base(config.model.base)


def require_pinned(config: TrainConfig, parent: VersionRef) -> None:
    """Raises ParentMismatch where the user asked for another parent than the head."""
    if config.model.parent not in {"", parent.digest}:
        raise ParentMismatch(
            f"model.parent is {config.model.parent}, but the head of {config.model.uri} is {parent.version} "
            f"({parent.digest}): pin that one, or remove model.parent"
        )


def find_applied(config: TrainConfig, inputs: Inputs, repository: Repository) -> VersionRef | None:
    """Returns the version of the lineage that this very update made, from whichever of its ancestors, or None."""
    for ref, manifest in repository.lineage():
        if manifest.parent and is_same_update(config, inputs, manifest):
            return ref
    return None


def small_files(repository: Repository, ref: VersionRef, manifest: Manifest, folder: Path) -> None:
    """Writes all files of a version that are no weights into a folder: configuration and tokenizer."""
    for file in manifest.files:
        if not file.path.startswith(".skill/") and not file.path.endswith(".safetensors"):
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(repository.read(ref, file.path))


def stored_bytes(manifest: Manifest) -> int:
    """Returns the size of a version's weights; those of an adapter that lies beside them are not counted."""
    return sum(file.size for file in manifest.files if file.path.endswith(".safetensors") and "/" not in file.path)


def _details(
    config: TrainConfig, inputs: Inputs, curriculum: Curriculum, manifest: Manifest, folder: Path
) -> dict[str, Any]:
    method, weight_bytes = config.method, stored_bytes(manifest)
    shape, adapter = sizes(folder, method)
    memory = memory_of(config, shape, adapter, curriculum.examples, gpu_bytes=COMMON_GPU)
    trained = adapter.trained if adapter else shape.num_parameters
    steps = curriculum.steps(method)
    best = trained if steps_between(config, steps) else 0
    # Student, two moments and teacher, and the best state's weights.
    checkpoint_bytes = FP32 * (state_numbers(shape, method, adapter)[1] + best)
    return {
        "totalSteps": steps,
        "trainRecords": len(inputs.train),
        "heldOutQuestions": len(inputs.held_out.records),
        "numParameters": shape.num_parameters,
        "memoryBytes": memory.peak,
        "trainedParameters": trained,
        "checkpointBytes": checkpoint_bytes,
        "scratchBytes": 2 * weight_bytes + checkpoint_bytes,  # parent and candidate beside it
        "dataDigest": inputs.data_digest,
    }


def late_checkpoint(size: int, training: Training) -> Iterator[str]:
    """Yields a sentence where a pod that is stopped would hardly have the time to save `size` bytes."""
    grace = training.grace_period_seconds
    needed = size / training.nodes / grace
    if needed > EASY_BYTES_PER_SECOND:
        yield (
            f"a checkpoint has {size / 1e9:.0f} GB, which a pod that is stopped saves within "
            f"training.gracePeriodSeconds ({grace}) at {needed / 1e6:.0f} MB/s only: raise that, or what was learned "
            "since the last checkpoint is lost"
        )


def _answer(reason: str, message: str, ref: VersionRef, details: dict[str, Any]) -> Outcome:
    return Outcome(
        step=Step.CHECK, outcome=Result.SUCCEEDED, reason=reason, message=message, details=details,
        version=ref.version, digest=ref.digest,
    )  # fmt: skip
