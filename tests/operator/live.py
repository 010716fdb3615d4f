"""A world in which the target's engines take adapters while they run: a ConfigMap, and pods whose agents read it."""

from __future__ import annotations

import copy
from typing import Any

from skill_contract.adapters import AdapterReport, Told
from skill_contract.manifest import FetchMessage
from skill_operator.actions import ApplyWeights
from skill_operator.api import FIELD_MANAGER
from skill_operator.manifests.serving import weights_patch
from skill_operator.observed import Target
from skill_operator.targets import adapters
from skill_operator.targets.read import is_going, kind_of
from tests.operator import raw
from tests.operator.raw import Raw
from tests.operator.sim import Sim

PORT = 8000
CONFIG_MAP = "support-llm-adapter"
BASE = ("000000-cccccccccccc", "sha256:" + "c" * 64)
"""The pods' own weights."""
_SPEC: Raw = {
    "method": {"adaptation": {"type": "LoRA", "lora": {"publish": "Adapter"}}},
    "serving": {"strategy": "Adapter"},
}


def update(**spec: Any) -> Raw:
    """A SkillUpdate that brings an adapter."""
    return raw.merged(raw.merged(raw.update(), {"spec": _SPEC}), {"spec": spec})


def wired(**changes: Any) -> Raw:
    """The serving Deployment, whose pods mount the ConfigMap."""
    deployment = raw.deployment(**changes)
    volumes = [{"name": "told", "configMap": {"name": CONFIG_MAP, "optional": True}}]
    return raw.merged(deployment, {"spec": {"template": {"spec": {"volumes": volumes}}}})


class LiveSim(Sim):
    """Pods stay as they are; what each was told, and what its agent made of it, is in `agents`."""

    def __init__(self, previous: str = "", body: Raw | None = None, engine: Raw | None = None) -> None:
        """A target whose pods have had this done to their engine's container; None: it has run since their start."""
        data = {"weights": previous} if previous else {}
        self.config_map: Raw | None = {"metadata": {"name": CONFIG_MAP, "managedFields": _owned(data)}, "data": data}
        self.agents: dict[str, AdapterReport | None] = {}
        super().__init__(body or update(), wired())
        self.change_engine(engine or {}, *range(len(self.serving)))
        self.sync()

    def sync(self, *names: str, fail: FetchMessage | None = None) -> None:
        """Kubelets and agents bring pods (all, or these) to what the ConfigMap says, or fail at it."""
        told = Told.of((self.config_map or {}).get("data", {}))
        digest = told.weights.partition("@")[2] or BASE[1]
        fetch = fail if fail and told.weights else FetchMessage(outcome="Fetched", digest=digest)
        for pod in self.serving:
            name = pod["metadata"]["name"]
            if names and name not in names:
                continue
            before = self.agents.get(name)
            is_good = fetch.outcome == "Fetched"
            answers = told.answering if is_good or told.held else (before.answers if before else "")
            self.agents[name] = AdapterReport(told=told, answers=answers, ready=is_good, base=BASE[0], fetch=fetch)

    def change_engine(self, status: Raw, *indices: int) -> None:
        """The kubelet says something else of the engine's container in these pods."""
        for index in indices:
            self.serving[index]["status"]["containerStatuses"][0] |= copy.deepcopy(status)

    @property
    def data(self) -> dict[str, str]:
        """What the ConfigMap says."""
        return dict((self.config_map or {}).get("data", {}))

    @property
    def annotation(self) -> str:
        return self.data.get("weights", "")

    def answering(self) -> set[str]:
        """The versions with which pods answer to the served name."""
        return {report.answers for report in self.agents.values() if report}

    def _target(self) -> Target | None:
        if self.deployment is None or is_going(self.deployment):
            return None
        kind = kind_of("Deployment")
        standing = kind.read(self.deployment, None)
        seen = adapters.live_target(kind, self.deployment, standing, self.serving, "server", config_map=self.config_map)
        return adapters.reported(seen, self.agents, PORT)

    def _apply(self, action: ApplyWeights) -> None:
        """Server-side apply: what is not named any more goes, but for what somebody else has taken."""
        patch = weights_patch(action.place, action.weights, hold=action.hold, beside=action.beside)
        data = copy.deepcopy(patch.get("data", {}))
        self.config_map = {"metadata": {"name": CONFIG_MAP, "managedFields": _owned(data)}, "data": data}

    def edit(self, **data: str) -> None:
        """By somebody's hand, who then owns it."""
        entry = {"manager": "kubectl-edit", "fieldsV1": {"f:data": {f"f:{key}": {} for key in data}}}
        self.config_map = {"metadata": {"name": CONFIG_MAP, "managedFields": [entry]}, "data": data}

    def until_loaded(self) -> None:
        """To a candidate that every pod has loaded, and that is being proved."""
        self.until_published()
        self.sync()
        self.settle()

    def until_switched(self) -> None:
        """To a proved candidate that answers everywhere; the soak has begun."""
        self.until_loaded()
        self.finish("prove")
        self.settle()
        self.sync()
        self.settle()

    def until_done(self) -> None:
        self.until_switched()
        self.now += 31
        self.settle()
        self.finish("promote")
        self.settle()


def _owned(data: dict[str, str]) -> list[Raw]:
    return [{"manager": FIELD_MANAGER, "fieldsV1": {"f:data": {f"f:{key}": {} for key in data}}}]
