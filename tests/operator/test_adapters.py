"""Adapters into live engines: loaded beside what answers, proved in every pod, only then switched to; and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from skill_contract.manifest import FetchMessage
from skill_contract.outcome import Result
from skill_contract.step import PromoteConfig, Step
from skill_operator.actions import ApplyWeights, Refusal
from skill_operator.api import Reason, parse, to_rfc3339
from skill_operator.manifests.serving import wiring
from tests.operator import raw
from tests.operator.live import BASE, LiveSim, update
from tests.operator.raw import CANDIDATE, CHILD, PREVIOUS
from tests.operator.seen import assert_failed, truth, why


def config(sim: LiveSim, step: str) -> PromoteConfig:
    (container,) = sim.job(step)["spec"]["template"]["spec"]["containers"]
    (variable,) = (each for each in container["env"] if each["name"] == "SKILL_CONFIG")
    return PromoteConfig.parse_json(variable["value"].replace("$$", "$"))


def test_candidate_is_loaded_beside_proved_under_its_own_name_switched_and_promoted():
    sim = LiveSim(PREVIOUS)
    sim.until_published()
    assert sim.data == {"weights": CANDIDATE, "previous": PREVIOUS, "held": "true"}
    sim.sync("support-llm-0")
    sim.settle()
    assert not sim.has_job("prove")
    sim.sync()
    sim.settle()
    asked = config(sim, "prove")
    assert (asked.served_model_name, asked.prove_only, len(asked.pods)) == (CHILD[0], True, 2)
    assert sim.answering() == {PREVIOUS}
    sim.finish("prove")
    sim.settle()
    assert sim.data == {"weights": CANDIDATE, "previous": PREVIOUS}
    assert sim.status.phase == "RollingOut"
    sim.sync()
    sim.settle()
    assert (sim.status.phase, sim.answering()) == ("Soaking", {CANDIDATE})
    sim.now += 31
    sim.settle()
    assert (config(sim, "promote").served_model_name, config(sim, "promote").prove_only) == ("", False)
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"]) == ("Succeeded", "True")
    assert sim.data == {"weights": CANDIDATE}
    assert sim.body["metadata"]["finalizers"] == []


def test_no_pod_is_touched():
    sim = LiveSim(PREVIOUS)
    before = raw.pretty([sim.deployment, [pod["metadata"] for pod in sim.serving]])
    sim.until_done()
    assert raw.pretty([sim.deployment, [pod["metadata"] for pod in sim.serving]]) == before
    places = {action.place.title for action in sim.done if isinstance(action, ApplyWeights)}
    assert places == {"ConfigMap support-llm-adapter"}


def test_first_adapter_goes_beside_the_pods_own_weights_and_back_to_them():
    sim = LiveSim()
    sim.until_published()
    assert sim.data == {"weights": CANDIDATE, "held": "true"}
    assert sim.status.rollout.previous_digest == BASE[1]
    sim.sync()
    sim.settle()
    sim.finish("prove", raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "it said something else"))
    sim.settle()
    assert (sim.data, sim.status.phase) == ({}, "RollingBack")
    sim.sync()
    sim.settle()
    assert_failed(sim, "RolledBack", "OutputMismatch", "something else")
    assert sim.answering() == {""}


@pytest.mark.parametrize("reason", ["DigestMismatch", "NotFound", "NoSpace", "BaseMismatch", "AdapterRefused"])
def test_adapter_that_one_pod_of_two_cannot_have_is_taken_from_all(reason: str):
    sim = LiveSim(PREVIOUS)
    sim.until_published()
    sim.sync("support-llm-0")
    sim.sync("support-llm-1", fail=FetchMessage(outcome="Failed", reason=reason, message=f"it says {reason}"))
    sim.settle()
    assert sim.data == {"weights": PREVIOUS}
    assert sim.answering() == {PREVIOUS}  # users have never seen the candidate
    sim.sync()
    sim.settle()
    assert_failed(sim, "Failed" if reason == "NoSpace" else "RolledBack", reason, "support-llm-1")


def test_store_that_is_away_is_waited_for_until_the_deadline():
    sim = LiveSim(PREVIOUS)
    sim.until_published()
    sim.sync(fail=FetchMessage(outcome="Failed", reason="FetchFailed", message="no answer"))
    sim.settle()
    assert (sim.status.phase, "no answer" in why(sim)[1]) == ("RollingOut", True)
    sim.now += 1801
    sim.settle()
    sim.sync()
    sim.settle()
    assert_failed(sim, "Failed", "FetchFailed", "no answer")
    assert sim.data == {"weights": PREVIOUS}


def test_agent_that_does_not_answer_is_named_with_its_port():
    sim = LiveSim(PREVIOUS)
    sim.until_published()
    sim.sync()
    sim.agents["support-llm-1"] = None
    sim.settle()
    assert not sim.has_job("prove")
    sim.now += 1801
    sim.settle()
    sim.sync()
    sim.settle()
    assert_failed(sim, "Failed", "EngineUnreachable", "agent of pod support-llm-1 does not answer at port 8000")


def ended(restarts: int, at: float, reason: str = "Error") -> raw.Raw:
    """What the kubelet says of an engine that was started again."""
    return {"restartCount": restarts, "lastState": {"terminated": raw.terminated(137, "killed", reason=reason, at=at)}}


LONG_AGO = raw.NOW - 7 * 86400
OLD = [ended(1, LONG_AGO, "OOMKilled"), ended(9, LONG_AGO)]


@pytest.mark.parametrize("engine", OLD, ids=["out of memory", "nine restarts"])
@pytest.mark.parametrize("skew", [-3600, 0, 3600], ids=["slow clock", "same clock", "fast clock"])
def test_what_befell_an_engine_before_the_rollout_is_not_the_candidate_s(engine: raw.Raw, skew: float):
    last = engine["lastState"]["terminated"] | {"finishedAt": to_rfc3339(raw.NOW + skew)}
    sim = LiveSim(PREVIOUS, engine=engine | {"lastState": {"terminated": last}})
    sim.until_done()
    assert (sim.status.phase, sim.data) == ("Succeeded", {"weights": CANDIDATE})


@pytest.mark.parametrize("engine", OLD, ids=["out of memory", "nine restarts"])
@pytest.mark.parametrize(
    ("later", "is_fault"),
    [(lambda n: ended(n + 1, raw.NOW, "OOMKilled"), True), (lambda n: ended(n + 3, raw.NOW), True),
     (lambda n: ended(n + 2, raw.NOW), False)],
    ids=["out of memory", "three restarts more", "two restarts more"],
)  # fmt: skip
def test_what_befalls_an_old_engine_in_the_rollout_counts(engine: raw.Raw, later: Any, *, is_fault: bool):
    sim = LiveSim(PREVIOUS, engine=engine)
    sim.until_loaded()
    sim.change_engine(later(engine["restartCount"]), 1)
    sim.settle()
    assert (sim.status.phase == "RollingBack") == is_fault
    assert not is_fault or why(sim)[1].startswith("EngineCrash: the engine of pod support-llm-1")


def test_all_that_befalls_a_pod_that_came_in_the_rollout_counts():
    """A pod of the same name, as a StatefulSet makes it, is another one."""
    sim = LiveSim(PREVIOUS, engine=OLD[1])
    sim.until_loaded()
    sim.serving[1]["metadata"]["uid"] = "of-another"
    sim.change_engine(ended(3, raw.NOW), 1)
    sim.settle()
    assert sim.status.phase == "RollingBack"


def test_pod_that_still_has_the_old_config_map_does_not_count_as_switched():
    """The kubelet brings a change within a minute: until then the pod answers with the version before."""
    sim = LiveSim(PREVIOUS)
    sim.until_loaded()
    sim.finish("prove")
    sim.settle()
    sim.sync("support-llm-0")
    sim.settle()
    assert (sim.status.phase, sim.status.rollout.pods_verified) == ("RollingOut", "1/2")
    sim.sync()
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_engine_that_loses_its_adapter_in_the_soak_begins_it_anew():
    sim = LiveSim(PREVIOUS)
    sim.until_switched()
    lost = sim.agents["support-llm-0"]
    sim.agents["support-llm-0"] = lost.model_copy(update={"ready": False, "fetch": None})
    sim.now += 29
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.sync()
    sim.settle()
    sim.now += 29
    sim.settle()
    assert (sim.status.phase, sim.has_job("promote")) == ("Soaking", False)


def test_proof_that_fails_after_the_switch_brings_the_one_before_back():
    sim = LiveSim(PREVIOUS)
    sim.until_switched()
    sim.now += 31
    sim.settle()
    sim.finish("promote", raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "no"))
    sim.settle()
    assert sim.data == {"weights": PREVIOUS}
    sim.sync()
    sim.settle()
    assert_failed(sim, "RolledBack", "OutputMismatch")
    assert sim.status.rollout.rollback.finished_at


def test_revert_goes_back_to_the_adapter_before():
    sim = LiveSim(PREVIOUS)
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.finish("revert")
    sim.settle()
    assert sim.data == {"weights": PREVIOUS}
    sim.sync()
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Reverted", "Reverted")


def test_update_deleted_in_the_hold_goes_back_first():
    sim = LiveSim(PREVIOUS)
    sim.until_loaded()
    sim.delete()
    sim.settle()
    assert sim.data == {"weights": PREVIOUS}
    assert sim.body["metadata"]["finalizers"]
    sim.sync()
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_hold_of_a_rollout_that_is_gone_is_not_let_through_unproved():
    sim = LiveSim(PREVIOUS)
    stranger = "s3://models/support-llm/versions/000041-dddddddddddd@sha256:" + "d" * 64
    sim.config_map["data"] = {"weights": stranger, "previous": PREVIOUS, "held": "true"}
    sim.config_map["metadata"]["managedFields"][0]["fieldsV1"]["f:data"] |= {"f:previous": {}, "f:held": {}}
    sim.until_published()
    assert sim.data in ({"weights": PREVIOUS}, {"weights": CANDIDATE, "previous": PREVIOUS, "held": "true"})
    assert stranger not in sim.data.values()


@pytest.mark.parametrize(
    ("data", "phase", "reason"),
    [({}, "Failed", "Superseded"), ({"weights": PREVIOUS}, "RolledBack", "ManualRollback"),
     ({"weights": "s3://x/versions/000009-eeeeeeeeeeee@sha256:1"}, "Failed", "Superseded")],
)  # fmt: skip
def test_stranger_s_hand_on_the_config_map_is_respected(data: dict[str, str], phase: str, reason: str):
    sim = LiveSim(PREVIOUS)
    sim.until_switched()
    sim.edit(**data)
    sim.settle()
    assert_failed(sim, phase, reason)
    assert sim.data == data


def test_config_map_of_another_manager_is_never_taken():
    sim = LiveSim(PREVIOUS)
    refusal = Refusal(ApplyWeights(sim._target().place, CANDIDATE), Reason.GITOPS_CONFLICT, "belongs to argocd")
    sim.refuse[ApplyWeights] = refusal
    sim.until_published()
    assert_failed(sim, "Failed", "GitOpsConflict", "argocd")


def test_target_without_the_agent_stalls_with_the_lines_to_paste():
    sim = LiveSim()
    sim.deployment = raw.deployment()
    sim.until_published()
    assert why(sim, "Stalled")[0] == "NotWired"
    for line in (
        "or not mounted by Deployment support-llm",
        "restartPolicy: Always",
        "args: [adapters,",
        "name: support-llm-adapter",
    ):
        assert line in why(sim)[1]
    assert not any(isinstance(action, ApplyWeights) for action in sim.done)


def test_config_map_that_is_not_there_is_asked_for():
    sim = LiveSim()
    sim.config_map = None
    sim.until_published()
    assert why(sim, "Stalled")[0] == "NotWired"
    assert "kind: ConfigMap, metadata: {name: support-llm-adapter}" in why(sim)[1]


def test_lines_to_paste_are_yaml_with_the_update_s_own_names():
    storage = {"endpoint": "http://s3:8333", "secretRef": {"name": "s3-creds"}}
    body = update(serving={"servedModelName": "support", "port": 8080}, storage=storage)
    lines = yaml.safe_load(wiring(parse(body).spec))
    (agent,) = lines["initContainers"]
    assert agent["args"][:5] == ["adapters", "--engine", "vllm", "--model", "support"]
    assert agent["env"] == [{"name": "AWS_ENDPOINT_URL_S3", "value": "http://s3:8333"}]
    assert agent["envFrom"] == [{"secretRef": {"name": "s3-creds"}}]
    assert lines["volumes"][1]["configMap"] == {"name": "support-llm-adapter", "optional": True}


def test_versions_under_the_adapters_stay_in_the_repository():
    sim = LiveSim(PREVIOUS, update(model={"keepVersions": 2}))
    sim.until_switched()
    sim.now += 31
    sim.settle()
    assert BASE[0] in config(sim, "promote").retention.in_use


STAGES: list[Callable[[LiveSim], Any]] = [
    LiveSim.until_published, LiveSim.until_loaded, LiveSim.until_switched, LiveSim.until_done,
]  # fmt: skip


@pytest.mark.parametrize("reach", STAGES, ids=lambda stage: stage.__name__)
def test_status_that_is_lost_at_any_point_is_learnt_anew(reach: Callable[[LiveSim], Any]):
    sim = LiveSim(PREVIOUS)
    reach(sim)
    sim.body["status"] = {}
    sim.settle()
    for _ in range(3):
        sim.sync()
        sim.settle()
        sim.now += 31
        sim.settle()
        if sim.has_job("prove") and not sim.job("prove")["status"].get("conditions"):
            sim.finish("prove")
        elif sim.has_job("promote") and not sim.job("promote")["status"].get("conditions"):
            sim.finish("promote")
        sim.settle()
    assert (sim.status.phase, sim.data) == ("Succeeded", {"weights": CANDIDATE})


@pytest.mark.parametrize("reach", STAGES[:3], ids=lambda stage: stage.__name__)
def test_operator_that_dies_before_each_write_does_nothing_else(reach: Callable[[LiveSim], Any]):
    """Every pass is made once in vain: its actions are carried out, and nothing is written down."""
    sim, plain = LiveSim(PREVIOUS), LiveSim(PREVIOUS)
    reach(plain)
    look = sim.look

    def twice(*, write: bool = True) -> Any:
        look(write=False)
        return look(write=write)

    sim.look = twice  # type: ignore[method-assign]
    reach(sim)
    assert (sim.data, sim.status.phase) == (plain.data, plain.status.phase)
