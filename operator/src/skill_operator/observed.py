"""What the operator sees of the world in one pass, as frozen facts.

Pure. How they are read from raw Kubernetes objects: `reading`.
"""

from __future__ import annotations

from dataclasses import dataclass

from skill_contract.manifest import FetchMessage
from skill_contract.outcome import ExitCode, Outcome
from skill_contract.progress import Progress
from skill_operator.actions import Place, Refusal
from skill_operator.api import FIELD_MANAGER
from skill_operator.status import Used


@dataclass(frozen=True, slots=True)
class StepPod:
    """A pod of a step's Job."""

    name: str
    uid: str
    index: int
    """Its number among the pods that train together; the first speaks for all."""
    node: str
    ip: str
    created: float
    running: bool
    deleting: bool
    disruption: str
    """Why it ends from outside, in Kubernetes' words (`<reason>: <message>`); empty where it does not."""
    started: float | None
    finished: float | None
    exit_code: int | None
    out_of_memory: bool
    outcome: Outcome | None
    message: str
    """The termination message where it is not an Outcome: the end of the log."""
    waiting: str
    """Why the pod has not started, in Kubernetes' words."""

    @property
    def is_preempted(self) -> bool:
        """Ended from outside (drain, preemption, node loss): it does not count as a failure."""
        return bool(self.disruption) or self.exit_code == ExitCode.PREEMPTED


@dataclass(frozen=True, slots=True)
class Workload:
    """How Kueue sees a Job that waits in one of its queues, or has waited."""

    waiting: str
    """Why it may not run now, in Kueue's words; empty where it may."""
    evictions: int
    """How often it had to give its place back: to a higher priority, most often."""


@dataclass(frozen=True, slots=True)
class StepJob:
    """A step's Job, or the JobSet of a step on several nodes, with its pods, the newest first."""

    kind: str
    """`Job` or `JobSet`."""
    name: str
    uid: str
    step: str
    run: int
    deleting: bool
    suspended: bool
    complete: bool
    failed: bool
    failed_reason: str
    failed_message: str
    finished: float | None
    failures: int
    """Pods (of a JobSet: all of them together) that failed and counted."""
    preemptions: int
    """Starts that were ended from outside, and do not count as failures."""
    started: float | None
    """Since when it may run, Unix seconds; None while it is suspended."""
    deadline_seconds: int | None
    """What Kubernetes itself holds it to; None where nothing does."""
    queue: str
    """Name of Kueue's queue that it was given to; empty for none."""
    pods: tuple[StepPod, ...]
    used: Used
    """By the update, before this Job."""
    workload: Workload | None = None

    @property
    def is_over(self) -> bool:
        return self.complete or self.failed


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A pod of the serving target."""

    name: str
    uid: str
    ip: str
    weights: str
    """Its own annotation: the version that it was told to serve."""
    ready: bool
    deleting: bool
    fetch: FetchMessage | None
    """What its fetch container reported last."""
    fetch_ended: float | None
    """When that was, Unix seconds."""
    created: float
    blocked: str
    """Why no container of it can be started, in Kubernetes' words (image, configuration); empty where they can."""
    engine_restarts: int
    engine_out_of_memory: bool
    engine_last_exit: float | None
    """When the engine last ended, Unix seconds."""
    engine_message: str
    unschedulable: str
    """Why no node takes it, in the scheduler's words; empty where one does."""
    dying: str = ""
    """Which container of it ends again and again, how and how often; empty where none does."""
    answers: bool = True
    """Requests go to it; not so to the workers of a group, which have the weights all the same."""
    base: str = ""
    """Name of the version whose weights it has under an adapter; empty where that is not known."""
    tls_ports: frozenset[int] = frozenset()
    """At which it ends TLS itself, by what its own probes say."""


@dataclass(frozen=True, slots=True)
class Target:
    """The workload that serves the model, with its pods, of whatever kind: `targets` reads them."""

    kind: str
    name: str
    place: Place
    weights: str
    """The annotation of its pod template; empty where there is none, of several templates that differ all of them."""
    weights_manager: str
    """Who wrote it last, by managedFields."""
    is_wired: bool
    """A container of every pod reads the annotation."""
    containers: tuple[str, ...]
    replicas: int
    """How many pods it is to have."""
    is_settled: bool
    """Every pod is of the newest template, available, and nothing is left of an older one."""
    state: str
    """How far it is, in words."""
    pods: tuple[ServingPod, ...]
    unfit: str = ""
    """Why it cannot be rolled as it is configured, and the way out; empty where it can."""
    shared_cache: str = ""
    """Why its pods would answer from keys and values of other weights, and the way out; empty where they would not."""
    draft_model: str = ""
    """Which container guesses tokens by a model that was made for the weights before; empty where none does."""
    waiting_fetcher: str = ""
    """The fetch container that waits while there is no annotation, for want of a SKILL_DEFAULT; empty for none."""
    given_up: str = ""
    """Why its own controller has given the newest template up; empty where it has not."""
    held: str = ""
    """For what its own controller holds the rollout on purpose, such as a canary step; empty where it goes on."""
    keeps_broken_pods: bool = False
    """Its controller replaces no pod while one is not ready, not even that one: on the way back it has to go first."""
    pauser: str = ""
    """Who has paused it; empty where nobody has."""
    unheld: str = ""
    """Why a rollout of it cannot be held after its first new pod; empty where it can."""
    template: str = ""
    """Names its pod template without the version: another name, another template."""
    room: str = ""
    """The way out where no node has room for a pod of it; empty where its kind knows none."""
    uncreated: str = ""
    """Why pods are not even created, in Kubernetes' words (quota, admission); empty where they are."""
    uncreated_since: float | None = None
    is_live: bool = False
    """No pod is replaced: all load the version beside what they answer with, are proved, and then answer with it."""
    beside: str = ""
    """The version that pods keep beside, for the way back."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def is_paused_by_us(self) -> bool:
        return self.pauser == FIELD_MANAGER


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another update that others have to know of: it waits, works, goes back, or has moved a head."""

    namespace: str
    name: str
    uid: str
    created: str
    model: str
    stands_aside: bool
    """It has ended, or waits for a person, who may never come: the queue goes past it."""
    is_active: bool
    """It has left the queue."""
    promoted_from: str
    """Digest of the version from which it has moved the head, for as long as it stays moved; else empty."""
    promoted_at: str
    """RFC 3339; empty where it has not."""
    rolling: str
    """`namespace/kind/name` of the target that it is rolling; empty for none."""
    is_reverting: bool
    holds: tuple[str, ...] = ()
    """Names of versions without which it could not go on or back: retention leaves them."""
    leaves: tuple[str, str] = ("", "")
    """A target, as `rolling` names it, and the name of the version that it has left there; empty for none."""
    took_back: str = ""
    """Digest of its own version, from which it has moved the head back (`spec.revert`); empty where it has not."""
    took_back_at: str = ""
    """RFC 3339; empty where it has not."""

    @property
    def has_ended(self) -> bool:
        """Returns whether it needs nothing more of its own: it is known for the head that it has moved."""
        return bool(self.promoted_from or self.took_back) and not self.is_reverting

    @property
    def place(self) -> tuple[str, str, str]:
        return self.created, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Question:
    """A query for Prometheus."""

    name: str
    expression: str
    before: bool = False
    """About the version before."""
    at: float | None = None
    """For which moment, Unix seconds; None: now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said: a finite value, or why there is none."""

    question: Question
    value: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    jobs: tuple[StepJob, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    progress: Progress | None = None
    target: Target | None = None
    target_out_of_reach: str = ""
    """Why the target cannot be looked at, and the way out: its kind is not installed, or not allowed."""
    serves_jobset: bool = False
    """Whether the API server knows JobSets; asked only where several nodes are wanted."""
    answers: tuple[Answer, ...] = ()
    """Of Prometheus, to what this pass had to ask."""
    refusals: tuple[Refusal, ...] = ()
    """What the API server refused in this pass."""

    def job(self, step: str) -> StepJob | None:
        """Returns the newest run of a step."""
        return max((job for job in self.jobs if job.step == step), key=lambda job: job.run, default=None)
