"""A small model of the world around the plan: it carries actions out and lets pods end as a test says.

Pure: for tables and property tests of `plan`. What Kubernetes really does is tested on a real API server, in `api/`.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from skill_contract.outcome import Outcome
from skill_contract.progress import Progress
from skill_contract.step import Step
from skill_operator.actions import (
    Action,
    AddFinalizer,
    ApplyWeights,
    CreateJob,
    DeleteJob,
    DeletePod,
    News,
    NoteRollback,
    PatchJob,
    Refusal,
    RemoveFinalizer,
)
from skill_operator.api import FIELD_MANAGER, FINALIZER, ROLLBACK_ANNOTATION, WEIGHTS_ANNOTATION, parse, to_rfc3339
from skill_operator.manifests.pod import Images
from skill_operator.observed import Answer, Neighbour, Observed, Question, StepJob, Target
from skill_operator.plan import Plan, asks, plan
from skill_operator.reading import step_jobs
from skill_operator.status import Status, read
from skill_operator.targets.read import is_going, kind_of, target
from tests.operator import raw
from tests.operator.raw import NOW, Raw

IMAGES = Images("trainer:1", "store:1", version="0.1.0")


class Sim:
    """One update, its children and the Deployment that it serves."""

    def __init__(self, body: Raw | None = None, deployment: Raw | None = None) -> None:
        self.body = body or raw.update()
        self.jobs: dict[str, Raw] = {}
        self.pods: list[Raw] = []
        self.deployment = deployment
        self.serving: list[Raw] = []
        self.says: dict[str, Any] = {}
        """What a target of another kind says beside what a Deployment does."""
        self.out_of_reach = ""
        self.neighbours: tuple[Neighbour, ...] = ()
        self.progress: Progress | None = None
        self.serves_jobset = True
        self.workloads: list[Raw] = []
        self.inside: dict[str, list[Raw]] = {}
        """Conditions of the Job inside of a JobSet, by the JobSet's name."""
        self.refuse: dict[type[Action], Refusal] = {}
        self.prometheus: dict[str, tuple[float | None, float | None]] = {}
        """What it says to each question about the candidate, and about the version before."""
        self.answers: tuple[Answer, ...] = ()
        """Or what a real one has said, for the next pass."""
        self.now = NOW
        self.done: list[Action] = []
        self.alerts: list[News] = []
        self.phases: list[str] = []
        """What a person has seen, one after the other."""
        self.shown: list[Raw] = []
        """The update as it was after every write."""
        if deployment:
            self.roll(digest=raw.PARENT[1])

    # -- passes -----------------------------------------------------------------------------------------------------

    def plan(self, refusals: tuple[Refusal, ...] = ()) -> Plan:
        seen = replace(self.observed(), refusals=refusals)
        update = parse(copy.deepcopy(self.body))
        asked = tuple(self._answer(question) for question in asks(update, seen, self.now)) if self.prometheus else ()
        answers, self.answers = asked or self.answers, ()
        return plan(update, replace(seen, answers=answers), IMAGES, self.now)

    def observed(self) -> Observed:
        return Observed(
            jobs=self.seen_jobs(),
            serves_jobset=self.serves_jobset,
            progress=self.progress,
            target=self._target(),
            target_out_of_reach=self.out_of_reach,
            neighbours=self.neighbours,
        )

    def _answer(self, question: Question) -> Answer:
        value = self.prometheus[question.name][question.before]
        return Answer(question, value, "" if value is not None else "no data")

    def _target(self) -> Target | None:
        if self.deployment is None or self.out_of_reach or is_going(self.deployment):
            return None
        kind = kind_of("Deployment")
        read = target(kind, self.deployment, kind.read(self.deployment, None), self.serving, "server")
        return replace(read, **self.says)

    def seen_jobs(self) -> tuple[StepJob, ...]:
        jobsets = [job for job in self.jobs.values() if job["kind"] == "JobSet"]
        inside = [self._inside(jobset) for jobset in jobsets]
        alone = [job for job in self.jobs.values() if job["kind"] == "Job"]
        return step_jobs([*alone, *inside], self.pods, jobsets, self.workloads)

    def _inside(self, jobset: Raw) -> Raw:
        """The Job that the JobSet controller has made: whose pods they are, and that knows why it failed."""
        name, uid = jobset["metadata"]["name"], jobset["metadata"]["uid"]
        owner = {"kind": "JobSet", "uid": uid}
        metadata = {"name": f"{name}-node-0", "uid": f"{uid}-inside", "ownerReferences": [owner]}
        return {"metadata": metadata, "status": {"conditions": self.inside.get(name, [])}}

    def look(self, *, write: bool = True) -> Plan:
        """One pass; `write=False`: the operator dies before it writes the status."""
        planned = self.plan()
        refusals = tuple(r for action in planned.actions if (r := self._carry_out(action)))
        if refusals:
            planned = self.plan(refusals)
        self.alerts += planned.alerts
        if write:
            self.body["status"] = copy.deepcopy(dict(planned.status))
            if not self.phases or self.phases[-1] != self.status.phase:
                self.phases.append(self.status.phase)
            self.shown.append(copy.deepcopy(self.body))
        return planned

    def settle(self, *, write: bool = True) -> Plan:
        """Passes until one neither acts nor changes the status."""
        for _ in range(30):
            before = copy.deepcopy(self.body), len(self.done)
            planned = self.look(write=write)
            if (self.body, len(self.done)) == before:
                return planned
        raise AssertionError(f"30 passes and no rest: {self.done[-6:]}")

    def _carry_out(self, action: Action) -> Refusal | None:
        if type(action) in self.refuse:
            return self.refuse[type(action)]
        self.done.append(action)
        match action:
            case CreateJob():
                self._create(copy.deepcopy(dict(action.manifest)))
            case PatchJob():
                self.jobs[action.name] = raw.merged(self.jobs[action.name], dict(action.patch))
            case DeleteJob():
                self._delete(action.name)
            case DeletePod():
                self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != action.name]
                self.serving = [pod for pod in self.serving if pod["metadata"]["name"] != action.name]
            case ApplyWeights():
                self._apply(action)
            case AddFinalizer():
                self.body["metadata"]["finalizers"] = [FINALIZER]
            case RemoveFinalizer():
                self.body["metadata"]["finalizers"] = []
            case NoteRollback():
                self.body["metadata"]["annotations"] = {ROLLBACK_ANNOTATION: action.note}
        return None

    def _create(self, manifest: Raw) -> None:
        name = manifest["metadata"]["name"]
        if name not in self.jobs:
            manifest["metadata"]["uid"] = f"uid-of-{name}"
            self.jobs[name] = manifest | {"status": {"active": 1}}

    def _delete(self, name: str) -> None:
        job = self.jobs.pop(name)
        owner = self._owner_of_pods(job)
        self.pods = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] != owner]

    def _apply(self, action: ApplyWeights) -> None:
        """Server-side apply: what our configuration does not name is given up, and goes if it is ours alone."""
        assert self.deployment is not None
        metadata, spec = self.deployment["metadata"], self.deployment["spec"]
        owned: Raw = {}
        seen = self._target()
        if action.weights or (seen and seen.weights_manager == FIELD_MANAGER):
            self._annotate(action.weights)
        if action.weights:
            owned = {"f:template": {"f:metadata": {"f:annotations": {f"f:{WEIGHTS_ANNOTATION}": {}}}}}
        spec["paused"] = action.hold
        if action.hold:
            owned["f:paused"] = {}
        metadata["managedFields"] = [{"manager": FIELD_MANAGER, "fieldsV1": {"f:spec": owned}}]

    def _annotate(self, weights: str) -> None:
        """By somebody's hand, who then owns it."""
        assert self.deployment is not None
        metadata = self.deployment["spec"]["template"]["metadata"]
        metadata["annotations"] = {WEIGHTS_ANNOTATION: weights} if weights else {}
        self.deployment["metadata"]["generation"] += 1
        for entry in self.deployment["metadata"].get("managedFields") or ():
            entry["fieldsV1"]["f:spec"].pop("f:template", None)

    # -- the world --------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return read(self.body["status"])

    @property
    def annotation(self) -> str:
        assert self.deployment is not None
        return str(
            (self.deployment["spec"]["template"]["metadata"].get("annotations") or {}).get(WEIGHTS_ANNOTATION, "")
        )

    def job(self, step: str) -> Raw:
        """The newest Job of a step."""
        jobs = [job for job in self.jobs.values() if job["metadata"]["labels"]["sdft.dev/step"] == step]
        return max(jobs, key=lambda job: int(job["metadata"]["labels"]["sdft.dev/run"]))

    def has_job(self, step: str) -> bool:
        return any(job["metadata"]["labels"]["sdft.dev/step"] == step for job in self.jobs.values())

    def _owner_of_pods(self, job: Raw) -> str:
        return str((self._inside(job) if job["kind"] == "JobSet" else job)["metadata"]["uid"])

    def pod(self, step: str, status: Raw, index: int = 0) -> Raw:
        """A new pod of a step's newest Job."""
        job = self.job(step)
        name = f"{job['metadata']['name']}-{index}-{len(self.pods)}"
        pod = {
            "metadata": {
                "name": name,
                "uid": f"uid-of-{name}",
                "creationTimestamp": to_rfc3339(self.now + len(self.pods)),
                "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [{"uid": self._owner_of_pods(job)}],
            },
            "spec": {"nodeName": "node-1"},
            "status": status,
        }
        self.pods.append(pod)
        return pod

    def finish(self, step: str, answer: Outcome | None = None, *, keep_pod: bool = True) -> None:
        """A step's Job ends well, with this last word or the usual one."""
        usual = raw.outcome(Step.PROMOTE if step in {"revert", "prove", "preflight"} else Step(step))
        if keep_pod:
            self._end_pod(step, raw.said(answer or usual, at=self.now))
        self.job(step)["status"] = {"conditions": [raw.job_condition("Complete", at=self.now)]}

    def _end_pod(self, step: str, status: Raw) -> None:
        """The pod of a step that runs, or else a new one, ends."""
        uid = self.job(step)["metadata"]["uid"]
        own = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] == uid]
        running = [pod for pod in own if "running" in pod["status"]["containerStatuses"][0]["state"]]
        (running[-1] if running else self.pod(step, status))["status"] = status

    def fail(self, step: str, status: Raw, reason: str = "BackoffLimitExceeded", failed: int = 1) -> None:
        """A step's Job fails, with its last pod in this status."""
        self._end_pod(step, status)
        failure = raw.job_condition("Failed", reason, f"Job says {reason}", at=self.now)
        self.job(step)["status"] = {"failed": failed, "conditions": [failure]}

    def roll(self, digest: str = raw.CHILD[1], **changes: Any) -> None:
        """The Deployment controller and kubelets bring all pods to the template's version."""
        assert self.deployment is not None
        count = self.deployment["spec"]["replicas"]
        weights = self.annotation
        status = raw.serving_status(raw.fetched(weights, digest)) if not changes else raw.serving_status(**changes)
        self.serving = [raw.serving_pod(index, weights, copy.deepcopy(status)) for index in range(count)]
        ready = count if not changes else 0
        self.deployment["status"] = {
            "observedGeneration": self.deployment["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }

    def roll_first(self, *, digest: str = raw.CHILD[1], **changes: Any) -> None:
        """The Deployment controller makes the first pod of the template's version, beside the old ones."""
        assert self.deployment is not None
        status = raw.serving_status(**(changes or {"message": raw.fetched(self.annotation, digest)}))
        self.serving.append(raw.serving_pod(9, self.annotation, status))
        self.deployment["status"] |= {"replicas": len(self.serving), "updatedReplicas": 1}

    def until_held(self) -> None:
        """To a rollout that waits for its first new pod, which is being proved."""
        self.until_published()
        self.roll_first()
        self.settle()

    def until_published(self) -> None:
        """From nothing to a published version, the straight way."""
        self.settle()
        self.finish("check")
        self.settle()
        self.finish("train")
        self.settle()

    def until_rolled(self) -> None:
        """To all pods on the candidate; the soak has begun."""
        self.until_published()
        self.roll()
        self.settle()

    def until_promoting(self) -> None:
        """To a promote Job that has been started."""
        self.until_rolled()
        self.now += 31
        self.settle()

    def until_done(self) -> None:
        self.until_promoting()
        self.finish("promote")
        self.settle()

    def delete(self) -> None:
        self.body["metadata"]["deletionTimestamp"] = to_rfc3339(self.now)
