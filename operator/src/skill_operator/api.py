"""The SkillUpdate as the operator reads it, and every name that users meet: labels, condition types, phases, reasons.

Pure. The meaning of `spec` is skill_contract's; this file adds what only the control plane needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from skill_contract.model import ContractError
from skill_contract.spec import SkillUpdateSpec
from skill_contract.step import UpdateIdentity

GROUP = "sdft.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SkillUpdate"
PLURAL = "skillupdates"

FIELD_MANAGER = "skill-operator"
FINALIZER = f"{GROUP}/rollout"
"""Held only while a rollout or a revert is under way: a deletion in its middle first brings the old weights back."""
WEIGHTS_ANNOTATION = f"{GROUP}/weights"
WEIGHTS_FIELD_PATH = f"metadata.annotations['{WEIGHTS_ANNOTATION}']"
VERSION_ANNOTATION = f"{GROUP}/version"
"""The version's name alone, beside WEIGHTS_ANNOTATION: for what must differ between versions, such as a path."""
VERSION_FIELD_PATH = f"metadata.annotations['{VERSION_ANNOTATION}']"

UPDATE_LABEL = f"{GROUP}/update"
UPDATE_UID_LABEL = f"{GROUP}/update-uid"
STEP_LABEL = f"{GROUP}/step"
RUN_LABEL = f"{GROUP}/run"
"""Number of the step's Job, from 1: a step whose answer was lost runs again under the next number."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_LABELS = (QUEUE_LABEL, "kueue.x-k8s.io/priority-class")
WORKLOAD_OWNER_LABEL = "kueue.x-k8s.io/job-uid"
"""On Kueue's Workload: the uid of the Job or JobSet that it stands for."""

STEP_CONTAINER = "step"
ROLLBACK_ANNOTATION = f"{GROUP}/rollback"
"""On a SkillUpdate, once its candidate is taken back: why. A status that is lost must not try it again."""
USED_ANNOTATION = f"{GROUP}/used"
"""On a train Job: what the update had used up when this Job began, because a Job's own counts begin at nothing."""


class Phase(StrEnum):
    """A summary for people; nothing is ever decided by it."""

    PENDING = "Pending"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    CHECKING = "Checking"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    AWAITING_APPROVAL = "AwaitingApproval"
    PUBLISHING = "Publishing"
    ROLLING_OUT = "RollingOut"
    SOAKING = "Soaking"
    ROLLING_BACK = "RollingBack"
    REVERTING = "Reverting"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    ROLLED_BACK = "RolledBack"
    REVERTED = "Reverted"


class ConditionType(StrEnum):
    READY = "Ready"
    SUCCEEDED = "Succeeded"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    CHECKED = "Checked"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    PUBLISHED = "Published"
    ROLLED_OUT = "RolledOut"
    REVERTED = "Reverted"
    SUSPENDED = "Suspended"
    QUEUED = "Queued"
    GITOPS_CONFLICT = "GitOpsConflict"
    NOT_WIRED = "NotWired"
    SHARED_KV_CACHE = "SharedKVCache"
    TARGET_BUSY = "TargetBusy"
    SURGE_BLOCKED = "SurgeBlocked"


MILESTONES = (
    ConditionType.CHECKED, ConditionType.TRAINED, ConditionType.EVALUATED, ConditionType.PUBLISHED,
    ConditionType.ROLLED_OUT, ConditionType.REVERTED,
)  # fmt: skip
"""Kept once reached or failed: their times are the durations of the stages."""


class Reason(StrEnum):
    """The operator's own reasons. Reasons of the steps come from their Outcome and are passed on as they are."""

    NOTICED = "Noticed"
    INVALID_SPEC = "InvalidSpec"
    JOBSET_MISSING = "JobSetMissing"
    NAME_CONFLICT = "NameConflict"
    CREATE_REFUSED = "CreateRefused"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"
    CHECKING = "Checking"
    WAITING_FOR_ADMISSION = "WaitingForAdmission"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    GATES_PASSED = "GatesPassed"
    HEARTBEAT_LOST = "HeartbeatLost"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    CRASHED = "Crashed"
    OUT_OF_MEMORY = "OutOfMemory"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    OUTCOME_LOST = "OutcomeLost"
    AWAITING_APPROVAL = "AwaitingApproval"
    PUBLISHING = "Publishing"
    STORE_UNAVAILABLE = "StoreUnavailable"
    PROMOTED = "Promoted"
    ALREADY_APPLIED = "AlreadyApplied"
    HEAD_MOVED = "HeadMoved"
    TARGET_MISSING = "TargetMissing"
    CONTAINER_MISSING = "ContainerMissing"
    NOT_WIRED = "NotWired"
    SHARED_KV_CACHE = "SharedKVCache"
    NO_PREVIOUS = "NoPrevious"
    TARGET_UNFIT = "TargetUnfit"
    TARGET_OUT_OF_REACH = "TargetOutOfReach"
    TARGET_BUSY = "TargetBusy"
    ROLLING_OUT = "RollingOut"
    SOAKING = "Soaking"
    SOAK_UNSTEADY = "SoakUnsteady"
    PROVING = "Proving"
    ANALYSING = "Analysing"
    ANALYSIS_FAILED = "AnalysisFailed"
    ANALYSIS_INCONCLUSIVE = "AnalysisInconclusive"
    PROGRESS_DEADLINE = "ProgressDeadline"
    ROLLOUT_ABORTED = "RolloutAborted"
    POD_NOT_CREATED = "PodNotCreated"
    SURGE_BLOCKED = "SurgeBlocked"
    FETCH_FAILED = "FetchFailed"
    ENGINE_CRASH = "EngineCrash"
    ENGINE_UNREACHABLE = "EngineUnreachable"
    OUTPUT_MISMATCH = "OutputMismatch"
    GITOPS_CONFLICT = "GitOpsConflict"
    SUPERSEDED = "Superseded"
    MANUAL_ROLLBACK = "ManualRollback"
    ROLLING_BACK = "RollingBack"
    ROLLBACK_FAILED = "RollbackFailed"
    REVERTING = "Reverting"
    REVERTED = "Reverted"
    REVERT_REFUSED = "RevertRefused"


AGAINST_THE_CANDIDATE = frozenset({
    Reason.ANALYSIS_FAILED, Reason.ANALYSIS_INCONCLUSIVE, Reason.ENGINE_CRASH, Reason.OUTPUT_MISMATCH,
    Reason.PROGRESS_DEADLINE, Reason.ROLLOUT_ABORTED, "AdapterRefused", "BaseMismatch", "DigestMismatch",
    "EngineRefused", "NotFound", "VersionMissing",
})  # fmt: skip
"""Reasons that a candidate was taken back for what it is, or for what it did not show. Any other says nothing about
the weights (no room, no access, nobody could ask, another was faster): that update has failed."""


@dataclass(frozen=True, slots=True)
class SkillUpdate:
    """One SkillUpdate object."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    """RFC 3339, as Kubernetes writes it; sorts by time."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    deleted: float | None
    """When somebody deleted it, Unix seconds; it stays as long as a finalizer holds it."""
    finalizers: tuple[str, ...]
    spec: SkillUpdateSpec | None
    problem: str
    """Why `spec` could not be read; empty where it could."""
    status: Mapping[str, Any]

    @property
    def identity(self) -> UpdateIdentity:
        return UpdateIdentity(namespace=self.namespace, name=self.name, uid=self.uid)

    @property
    def deleting(self) -> bool:
        return self.deleted is not None

    @property
    def holds_finalizer(self) -> bool:
        return FINALIZER in self.finalizers


def parse(body: Mapping[str, Any]) -> SkillUpdate:
    """Returns the SkillUpdate in a raw object; never raises for what a user wrote: `problem` says what is wrong."""
    metadata = body["metadata"]
    spec, problem = _parse_spec(body.get("spec") or {})
    return SkillUpdate(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata.get("resourceVersion", ""),
        created=metadata.get("creationTimestamp", ""),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        deleted=to_unix(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=spec,
        problem=problem,
        status=body.get("status") or {},
    )


def _parse_spec(raw: Mapping[str, Any]) -> tuple[SkillUpdateSpec | None, str]:
    try:
        return SkillUpdateSpec.parse(dict(raw)), ""
    except ContractError as error:
        return None, str(error)


def to_unix(time: str | None) -> float | None:
    """Returns the Unix seconds of an RFC 3339 time; None for none or a broken one."""
    try:
        return datetime.fromisoformat(time).timestamp() if time else None
    except (ValueError, OverflowError):
        return None


def to_rfc3339(seconds: float) -> str:
    """Returns Unix seconds as Kubernetes writes times: UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
