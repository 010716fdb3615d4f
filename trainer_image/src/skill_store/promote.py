"""The promote step: prove what the pods serve, then move the head. Safe to run again at any point."""

from __future__ import annotations

import logging
import os
from typing import Any

from skill_contract.manifest import GoldenSet, VersionRef
from skill_contract.model import ContractError
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import PromoteConfig, Step
from skill_store import layout
from skill_store.errors import UNKNOWN_FAULT, HeadMoved, NotFound, StoreError, nothing_else
from skill_store.proof import PodProof, backwards
from skill_store.prove import Access, prove
from skill_store.repository import Head, Repository
from skill_store.retention import Policy, remove

_log = logging.getLogger(__name__)


def promote(config: PromoteConfig) -> tuple[Outcome, int]:
    """Returns the step's answer and its exit code, whatever happens."""
    try:
        with nothing_else():
            return _promote(config), ExitCode.FINISHED
    except StoreError as error:
        code = UNKNOWN_FAULT if error.retriable else ExitCode.USER_ERROR
        return _answer(config, Result.FAILED, error.reason, error.message), code


def _promote(config: PromoteConfig) -> Outcome:
    repository = Repository(config.model_uri)
    candidate = VersionRef(version=config.version, digest=config.digest)
    if config.prove_only and not config.pods:
        repository.manifest(candidate)
        return _answer(config, Result.SUCCEEDED, "Found", f"{config.version} is there to go back to")
    head = repository.head()
    if head and head.ref == candidate:
        tidied = _tidy(config)
        return _answer(config, Result.SUCCEEDED, "Promoted", f"{config.version} is the head already{tidied}")
    if head is None or head.digest != config.parent_digest:
        now = f"{head.version} ({head.digest})" if head else "gone"
        raise HeadMoved(
            f"{config.model_uri}: the head is {now} and not {config.parent_digest}, from which {config.version} was"
            " trained; create a new SkillUpdate to train from the new head"
        )
    proofs = _prove(repository, config, candidate, head) if config.pods else []
    refuted = [proof for proof in proofs if not proof.proved]
    if refuted:
        return _answer(config, Result.REJECTED, "OutputMismatch", refuted[0].evidence(), proofs)
    if config.prove_only:
        said = f"{config.version} is what is served so far{_untold(proofs)}"
        return _answer(config, Result.SUCCEEDED, "Proved", said, proofs)
    repository.move_head(candidate, expected=head, update=config.update)
    said = f"{config.version} is the head{_untold(proofs)}{_tidy(config)}"
    return _answer(config, Result.SUCCEEDED, "Promoted", said, proofs)


def _untold(proofs: list[PodProof]) -> str:
    """Returns what is to be said where a pod was proved by answers that its old weights would have given, too."""
    untold = next((proof.untold for proof in proofs if proof.untold), "")
    return f"; {untold}" if untold else ""


def _tidy(config: PromoteConfig) -> str:
    """Returns what retention did, to be said after what was promoted: its failure is no failure of the promotion."""
    asked = config.retention
    if asked is None:
        return ""
    policy = Policy(
        keep=asked.keep_versions,
        in_use=frozenset({*asked.in_use, config.version}),
        updates=frozenset({*asked.updates, config.update.uid}),
    )
    try:
        with nothing_else():
            removed = remove(config.model_uri, policy).removed
    except StoreError as error:
        _log.warning("retention failed: %s", error.message)
        return f"; old versions were not removed: {error.message}"
    for each in removed:
        _log.info("removed %s %s: it %s", each.kind, each.name, each.why)
    versions = [each for each in removed if each.kind == "version"]
    gigabytes = sum(each.size for each in removed) / 1e9
    return f"; {len(versions)} old versions were removed ({gigabytes:.2f} GB with leftovers)" if removed else ""


def _prove(repository: Repository, config: PromoteConfig, candidate: VersionRef, head: Head) -> list[PodProof]:
    golden = _golden(repository, candidate, head)
    if not golden.prompts:
        raise NotFound(
            f"{config.model_uri}: version {config.version} has no golden prompts, so that no pod can be proved; give a"
            " suite records without tools, or tools as the OpenAI API has them and calls in <tool_call> tags"
        )
    _log.info("asking %d pods %d golden prompts each", len(config.pods), len(golden.prompts))
    return prove(config.pods, golden, model=config.served_model_name, access=Access.of(os.environ))


def _golden(repository: Repository, candidate: VersionRef, head: Head) -> GoldenSet:
    """Returns what the candidate answers: by its own record, or, for a return to the head's parent, by the head's."""
    returning = repository.manifest(head.ref).parent == candidate
    ref = head.ref if returning else candidate
    data = repository.read(ref, layout.GOLDEN)
    try:
        golden = GoldenSet.parse_json(data)
    except ContractError as error:
        raise StoreError(
            f"{repository.uri}: {layout.GOLDEN} of {ref.version} is no set of golden prompts: {error}"
        ) from error
    return backwards(golden) if returning else golden


def _answer(
    config: PromoteConfig, result: Result, reason: str, message: str, proofs: list[PodProof] | None = None
) -> Outcome:
    pods: list[dict[str, Any]] = [
        {
            "name": proof.pod, "proved": proof.proved, "matched": proof.matched, "asked": proof.asked,
            "telling": proof.telling, "nats": proof.nats,
        }
        for proof in proofs or ()
    ]  # fmt: skip
    return Outcome(
        step=Step.PROMOTE,
        outcome=result,
        reason=reason,
        message=message,
        version=config.version,
        digest=config.digest,
        details={"pods": pods} if pods else {},
    )
