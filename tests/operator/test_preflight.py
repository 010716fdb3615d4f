"""A rollout is begun only where what it would go back to is still in the repository."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Outcome, Result
from skill_contract.step import Step
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PREVIOUS
from tests.operator.seen import promote_config, truth, why
from tests.operator.sim import Sim

OLDER, OTHER = ("000039-cccccccccccc", "sha256:" + "c" * 64), ("000040-dddddddddddd", "sha256:" + "d" * 64)


def weights(version: tuple[str, str]) -> str:
    return f"{raw.MODEL}/versions/{version[0]}@{version[1]}"


def found(version: tuple[str, str]) -> Outcome:
    answer = raw.outcome(Step.PROMOTE, reason="Found")
    return answer.model_copy(update={"version": version[0], "digest": version[1]})


def failed(reason: str, message: str = "") -> Outcome:
    return raw.outcome(Step.PROMOTE, Result.FAILED, reason, message)


def looking() -> Sim:
    """An update whose target a person has told an older version than the head."""
    sim = Sim(deployment=raw.deployment(weights=weights(OLDER)))
    sim.roll(digest=OLDER[1])
    sim.until_published()
    return sim


def test_version_before_that_is_not_the_parent_is_looked_up_before_anything_is_told():
    sim = looking()
    config = promote_config(sim, "preflight")
    assert (config.version, config.digest, config.pods, config.prove_only) == (*OLDER, (), True)
    assert (sim.annotation, sim.status.rollout, sim.status.phase) == (weights(OLDER), None, "RollingOut")
    sim.finish("preflight", found(OLDER))
    sim.settle()
    assert sim.annotation == CANDIDATE
    assert sim.status.rollout is not None
    assert sim.status.rollout.previous == weights(OLDER)


@pytest.mark.parametrize("told", ["", PREVIOUS, f"s3://models/another/versions/{OLDER[0]}@{OLDER[1]}"])
def test_parent_and_what_is_not_known_are_not_looked_up(told: str):
    sim = Sim(deployment=raw.deployment(weights=told))
    sim.until_published()
    assert (sim.annotation, sim.has_job("preflight")) == (CANDIDATE, False)


def test_version_before_that_is_gone_stalls_until_the_target_is_told_another():
    sim = looking()
    sim.fail("preflight", raw.said(failed("VersionMissing", f"version {OLDER[0]} was removed"), 42), "PodFailurePolicy")
    sim.settle()
    reason, message = why(sim, "Stalled")
    assert (reason, sim.annotation, sim.status.rollout) == ("NoPrevious", weights(OLDER), None)
    for words in (OLDER[0], "was removed", "tell annotation sdft.dev/weights of Deployment support-llm a version"):
        assert words in message
    sim._annotate(weights(OTHER))
    sim.roll(digest=OTHER[1])
    sim.now += 60
    sim.settle()
    assert promote_config(sim, "preflight").version == OTHER[0]
    sim.finish("preflight", found(OTHER))
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_answer_about_another_version_is_no_answer():
    sim = looking()
    sim._annotate(weights(OTHER))
    sim.roll(digest=OTHER[1])
    sim.finish("preflight", found(OLDER))
    sim.settle()
    assert (sim.annotation, promote_config(sim, "preflight").version) == (weights(OTHER), OTHER[0])


def test_store_that_is_away_is_asked_again_and_nothing_is_told_meanwhile():
    sim = looking()
    for _ in range(7):
        sim.fail("preflight", raw.said(failed("StoreUnavailable", "s3 is away"), 1))
        planned = sim.settle()
        assert ("s3 is away" in why(sim)[1], truth(sim)["Succeeded"]) == (True, "Unknown")
        sim.now += planned.requeue_after or 0
        sim.settle()
    assert sim.annotation == weights(OLDER)
    sim.finish("preflight", found(OLDER))
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_fault_after_it_goes_back_to_the_version_that_was_looked_up():
    sim = looking()
    sim.finish("preflight", found(OLDER))
    sim.settle()
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    assert sim.annotation == weights(OLDER)
