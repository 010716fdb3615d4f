"""The life of an update as a script: how to bring one to a phase and hold it there, how to let it go, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skill_contract.progress import Stage
from skill_operator.api import FIELD_MANAGER, FINALIZER
from skill_operator.manifests.serving import weights_patch
from tests.chaos.actors import FIRST, REVERT, Kubelets, Script, is_step
from tests.chaos.ledger import Ledger
from tests.operator import raw
from tests.operator.api.place import Place, Raw, annotation, at_rest
from tests.operator.raw import CHILD, PARENT

NAME = "skill"
TARGET = "support-llm"
PATIENCE_S = 180
"""A busy machine has its time, and so has an operator that backs off."""


@dataclass(frozen=True)
class Ending:
    """What is to be seen at the end."""

    phase: str
    """Of the update; `gone` where it is not there any more."""
    served: str = "candidate"
    """Which annotation the Deployment has at the end: `previous`, `candidate`, `stranger`, or `gone`."""
    promoted: str = "candidate"
    """What the head of the repository is."""
    reason: str = ""
    """Of the condition Ready, where it matters."""

    def __str__(self) -> str:
        return f"{self.phase} ({self.reason})" if self.reason else self.phase


SUCCEEDED = Ending("Succeeded")
ROLLED_BACK = Ending("RolledBack", "previous", "previous")
REVERTED = Ending("Reverted", "previous", "previous")


@dataclass(frozen=True, eq=False)
class Station:
    """A phase of an update's life in which it can be held."""

    name: str
    ending: Ending
    """Without a fault."""
    there: Callable[[Cell], object]
    """Whether the update is at it."""
    held: frozenset[str] = frozenset()
    """What does not end by itself (see Script.held)."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What its update's spec has besides."""
    progress: tuple[Stage, int, int] | None = None
    rejects: bool = False
    first: bool = False
    """Another update of the same model is before it."""
    before: Callable[[Cell], object] | None = None
    """Where it waits until all others of its wave are there: for phases that do not last."""
    asks: Mapping[str, Any] | None = None
    """What a person then changes in the spec to bring it to its phase."""
    goes_on: Mapping[str, Any] | None = None
    """What a person changes in the spec to let it go on."""


class Cell:
    """One update that meets one fault at one station, in a namespace of its own."""

    def __init__(self, place: Place, ledger: Ledger, kubelets: Kubelets, station: Station, address: str) -> None:
        self.place, self.ledger, self.kubelets, self.station = place, ledger, kubelets, station
        self.script = Script(place, address, rejects=station.rejects, progress=station.progress)
        self.uid = ""

    # -- what is seen -----------------------------------------------------------------------------------------------

    @property
    def namespace(self) -> str:
        return self.place.namespace

    @property
    def update(self) -> Raw | None:
        """The update as it is now; None where it is gone."""
        seen = self.ledger.get("skillupdates", self.namespace, NAME)
        return seen if seen and seen["metadata"]["uid"] == self.uid else None

    @property
    def status(self) -> Raw:
        return ((self.update or {}).get("status")) or {}

    @property
    def phase(self) -> str:
        """The phase of the update's newest form; `gone` where there is no update."""
        update = self.update
        if update is None:
            return "gone"
        is_newest = self.status.get("observedGeneration") == update["metadata"]["generation"]
        return str(self.status.get("phase", "")) if is_newest else ""

    @property
    def reason(self) -> str:
        return next((str(c["reason"]) for c in self.status.get("conditions", []) if c["type"] == "Ready"), "")

    @property
    def weights(self) -> str:
        """The Deployment's annotation by its part: previous, candidate, or that of a stranger; `gone` without one."""
        deployment = self.ledger.get("deployments", self.namespace, TARGET)
        if deployment is None:
            return "gone"
        parts = {self.script.previous: "previous", self.script.candidate: "candidate"}
        return parts.get(annotation(deployment), "stranger")

    @property
    def head(self) -> str:
        return {PARENT[1]: "previous", CHILD[1]: "candidate"}[self.script.head[-1]]

    def jobs(self, step: str = "") -> list[Raw]:
        """The update's Jobs that are there, by their owner: whatever becomes of their labels."""
        jobs = [job for job in self.ledger.all("jobs", self.namespace) if job["metadata"]["name"].startswith(NAME)]
        return [job for job in jobs if f"-{step}" in job["metadata"]["name"]]

    def held_pod(self, step: str) -> Raw | None:
        """The pod of a step that runs and does not end by itself."""
        return next((pod for pod in self.script.waiting.values() if self.script.role(pod) == step), None)

    def step_pod(self) -> Raw | None:
        return next((pod for pod in self.script.waiting.values() if is_step(pod)), None)

    def is_running(self, step: str) -> bool:
        """Returns whether the API server has the step's held pod as running."""
        pod = self.held_pod(step)
        seen = pod and self.ledger.get("pods", self.namespace, pod["metadata"]["name"])
        return bool(seen) and seen["status"].get("phase") == "Running"

    async def until(self, reached: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
        await self.ledger.until(self.namespace, reached, what, seconds)

    # -- what is done -----------------------------------------------------------------------------------------------

    async def approach(self) -> None:
        """From nothing to the station, or to the last place before it where one can wait."""
        self.kubelets.scripts[self.namespace] = self.script
        if self.script.progress:
            await self.kubelets.serve_progress(self.script)
        await self._serve()
        self.script.held |= self.station.held
        if self.station.first:
            self.script.held.add(FIRST)
            await self.place.update(FIRST, serving=False)
            await self.until(lambda: self.held_pod(FIRST), "the check of the update before")
        created = await self.place.update(NAME, **self.station.spec)
        self.uid = created["metadata"]["uid"]
        waits = self.station.before or self.station.there
        await self.until(lambda: waits(self), f"on the way to {self.station.name}")

    async def _serve(self) -> None:
        """Creates the Deployment as an earlier update left it: with an annotation that is the operator's own."""
        document = raw.deployment(replicas=0)
        del document["status"], document["metadata"]["generation"]
        await self.place.create("deployments", document)
        patch = weights_patch(raw.PLACE, self.script.previous)
        await self.place.apply("deployments", TARGET, patch, FIELD_MANAGER)
        await self.place.patch("deployments", TARGET, {"spec": {"replicas": 2}})
        await self.until(self._is_served, "the Deployment's pods")

    def _is_served(self) -> bool:
        deployment = self.ledger.get("deployments", self.namespace, TARGET)
        return deployment is not None and at_rest(deployment)

    async def arrive(self) -> None:
        """From there to the station."""
        if self.station.before is None:
            return
        if self.station.asks:
            await self.place.patch("skillupdates", NAME, {"spec": self.station.asks})
        else:
            await self.kubelets.release(self.script)
        await self.until(lambda: self.station.there(self), f"arrival at {self.station.name}")

    async def release(self) -> None:
        """Lets everything go on that the station held."""
        if self.station.goes_on:
            answer = await self.place.client.patch(
                self.place.path("skillupdates", NAME),
                json={"spec": self.station.goes_on},
                headers={"Content-Type": "application/merge-patch+json"},
            )
            assert answer.status_code in {200, 404}, answer.text  # it may have been deleted, and be gone already
        await self.kubelets.release(self.script)

    async def end(self, ending: Ending) -> None:
        """Waits for the end."""

        def is_there() -> bool:
            phase, seen = self.phase, self.update
            is_held = seen is not None and FINALIZER in seen["metadata"].get("finalizers", ())
            return (phase, self.weights) == (ending.phase, ending.served) and not is_held

        try:
            await self.until(is_there, f"the end as {ending}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self}") from None

    def __str__(self) -> str:
        ready = [c["message"] for c in self.status.get("conditions", []) if c["type"] == "Ready"]
        metadata = (self.update or {}).get("metadata", {})
        waiting = [self.script.role(pod) for pod in self.script.waiting.values()]
        return (
            f"phase {self.phase or self.status.get('phase')}, {self.reason}: {' '.join(ready)[:300]}; serves "
            f"{self.weights}, head {self.head}, finalizers {metadata.get('finalizers', [])}, deleted "
            f"{metadata.get('deletionTimestamp', 'not')}, waiting {waiting}"
        )


def _in_phase(phase: str, running: str = "") -> Callable[[Cell], object]:
    return lambda cell: cell.phase == phase and (not running or cell.is_running(running))


def _is_rolling(cell: Cell) -> bool:
    """The Deployment was told the candidate, the operator has noted that, and a pod of it is there."""
    has_noted = (cell.status.get("rollout") or {}).get("appliedAt") is not None
    is_told = cell.phase == "RollingOut" and cell.weights == "candidate"
    return is_told and has_noted and cell.held_pod("candidate") is not None


def _training(cell: Cell) -> Raw:
    return cell.status.get("training") or {}


STATIONS = (
    Station("Queued", SUCCEEDED, _in_phase("Queued"), first=True),
    Station("Checking", SUCCEEDED, _in_phase("Checking", "check"), frozenset({"check"})),
    Station("Training", SUCCEEDED, _in_phase("Training", "train"), frozenset({"train"})),
    Station(
        "Training, checkpoint", SUCCEEDED, lambda cell: _training(cell).get("lastCheckpointStep") == 50,
        frozenset({"train"}), progress=(Stage.TRAINING, 60, 50),
    ),
    Station(
        "Evaluating", SUCCEEDED, _in_phase("Evaluating", "train"), frozenset({"train"}),
        progress=(Stage.EVALUATING, 130, 130),
    ),
    Station(
        "AwaitingApproval", SUCCEEDED, _in_phase("AwaitingApproval"), spec={"gates": {"approval": "Manual"}},
        goes_on={"approved": True},
    ),
    Station("RollingOut", SUCCEEDED, _is_rolling, frozenset({"candidate"})),
    Station(
        "Soaking", SUCCEEDED, lambda cell: (cell.phase, cell.reason) == ("Soaking", "Soaking"),
        frozenset({"candidate"}), spec={"serving": {"soakSeconds": 8}},
        before=_is_rolling,
    ),
    Station("promote", SUCCEEDED, _in_phase("Soaking", "promote"), frozenset({"promote"})),
    Station(
        "RollingBack", ROLLED_BACK, lambda cell: cell.phase == "RollingBack" and cell.weights == "previous",
        frozenset({"previous"}), rejects=True,
    ),
    Station(
        "Reverting", REVERTED, _in_phase("Reverting", REVERT), frozenset({REVERT}), before=_in_phase("Succeeded"),
        asks={"revert": True},
    ),
    Station("final", SUCCEEDED, _in_phase("Succeeded")),
)  # fmt: skip
