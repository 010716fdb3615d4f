"""What the tests of an update's life ask of its status, and the states that they begin with."""

from __future__ import annotations

from typing import Any

from skill_contract.progress import Progress, Stage
from skill_contract.step import PromoteConfig
from skill_operator.conditions import is_settled
from skill_operator.observed import Neighbour
from tests.operator import raw
from tests.operator.sim import Sim


def truth(sim: Sim) -> dict[str, str]:
    """Conditions by type."""
    return {condition.type: condition.status for condition in sim.status.conditions}


def why(sim: Sim, kind: str = "Ready") -> tuple[str, str]:
    condition = sim.status.condition(kind)
    assert condition is not None, f"no condition {kind}: {truth(sim)}"
    return condition.reason, condition.message


def assert_failed(sim: Sim, phase: str, reason: str, *words: str) -> None:
    """The update has ended badly, says why in all three places, and needs nothing more."""
    assert (sim.status.phase, why(sim)[0], why(sim, "Stalled")[0]) == (phase, reason, reason)
    assert (truth(sim)["Ready"], truth(sim)["Succeeded"]) == ("False", "False")
    assert "Reconciling" not in truth(sim)
    assert sim.status.failure is not None
    assert sim.status.completion_time is not None
    for word in words:
        assert word in why(sim)[1]
    assert is_settled(sim.body)


def served() -> Sim:
    return Sim(deployment=raw.deployment())


def neighbour(**changes: Any) -> Neighbour:
    other = {
        "namespace": "team", "name": "other", "uid": "other", "created": "2020-01-01T00:00:00Z", "model": raw.MODEL,
        "stands_aside": False, "is_active": False, "rolling": "", "is_reverting": False,
        "promoted_from": "", "promoted_at": "",
    }  # fmt: skip
    return Neighbour(**(other | changes))


def training(sim: Sim, *, heartbeat: float = 0, stage: Stage = Stage.TRAINING, checkpoint: int | None = 50) -> None:
    sim.progress = Progress(
        stage=stage, step=60, total=130, eta_seconds=70.4, loss=0.5, tokens_per_second=900.0,
        last_checkpoint=checkpoint, heartbeat=sim.now - heartbeat,
    )  # fmt: skip


def trained(body: raw.Raw | None = None) -> Sim:
    """An update whose trainer runs."""
    sim = Sim(body or raw.update(serving=False))
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.pod("train", raw.running())
    return sim


def promote_config(sim: Sim, step: str = "promote") -> PromoteConfig:
    (container,) = sim.job(step)["spec"]["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    return PromoteConfig.parse_json(values["SKILL_CONFIG"])
