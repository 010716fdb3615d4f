"""Raw Kubernetes objects as an API server would return them, for the pure tests and as a start for the real ones."""

from __future__ import annotations

import copy
import json
from typing import Any

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.manifest import FetchMessage, VersionRef
from skill_contract.outcome import Outcome, Result
from skill_contract.step import Step
from skill_operator.actions import Place
from skill_operator.api import WEIGHTS_ANNOTATION, WEIGHTS_FIELD_PATH, to_rfc3339

Raw = dict[str, Any]
NOW = 1_760_000_000.0
"""In the past, also where real controllers read it: a Job waits for pods that ended lately, not long ago."""
UID = "6f1f2b6e-5a0c-4c53-9d50-3f1a3b6c2a11"
MODEL = "s3://models/support-llm"
PARENT = ("000041-aaaaaaaaaaaa", "sha256:" + "a" * 64)
CHILD = ("000042-bbbbbbbbbbbb", "sha256:" + "b" * 64)
CANDIDATE = f"{MODEL}/versions/{CHILD[0]}@{CHILD[1]}"
PREVIOUS = f"{MODEL}/versions/{PARENT[0]}@{PARENT[1]}"

PLACE = Place("apps/v1", "Deployment", "deployments", "support-llm", (("spec", "template", "metadata", "annotations"),))
"""Where the annotation of the serving Deployment stands."""


def merged(base: Raw, changes: Raw) -> Raw:
    """Returns `base` with nested changes."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return result


def update(*, name: str = "refund-tool", serving: bool = True, metadata: Raw | None = None, **spec: Any) -> Raw:
    """A SkillUpdate with the CRD's defaults left out, as skill_contract fills them in."""
    served = {"serving": {"targetRef": {"name": "support-llm"}, "soakSeconds": 30}} if serving else {}
    return {
        "apiVersion": "sdft.dev/v1alpha1",
        "kind": "SkillUpdate",
        "metadata": merged(
            {
                "name": name,
                "namespace": "team",
                "uid": UID,
                "generation": 1,
                "resourceVersion": "1",
                "creationTimestamp": to_rfc3339(NOW - 60),
            },
            metadata or {},
        ),
        "spec": merged(
            {
                "model": {"uri": MODEL},
                "skill": {"name": name},
                "data": {"train": "s3://skills/train.jsonl", "heldOut": {"uri": "s3://skills/test.jsonl"}},
                "training": {"gpusPerNode": 8},
                **served,
            },
            spec,
        ),
        "status": {},
    }


def evaluation(verdict: Verdict = Verdict.PASSED) -> Evaluation:
    comparison = Comparison(
        suite="refund-tool", before=0.1, after=0.9, gain=0.8, low=0.7, high=0.9, n=100, normalized=9, verdict=verdict
    )
    return Evaluation(new_skill=comparison, retention=(comparison,), worst_retention=0.98, verdict=verdict)


def outcome(step: Step, result: Result = Result.SUCCEEDED, reason: str = "", message: str = "") -> Outcome:
    """The usual last word of a step."""
    version, digest = PARENT if step is Step.CHECK else CHILD
    reasons = {Step.CHECK: "Checked", Step.TRAIN: "Published", Step.PROMOTE: "Promoted"}
    good = result is Result.SUCCEEDED
    return Outcome(
        step=step,
        outcome=result,
        reason=reason or reasons[step],
        message=message or f"{step} says {reason or reasons[step]}",
        version=version if good else "",
        digest=digest if good else "",
        evaluation=evaluation() if step is Step.TRAIN else None,
    )


def adopted() -> Outcome:
    """The last word of a check that has found the child, published and not promoted."""
    child = VersionRef(version=CHILD[0], digest=CHILD[1])
    checked = outcome(Step.CHECK, reason="Adopted", message=f"{child.version} was made from the same: it is adopted")
    return checked.model_copy(update={"published": child, "evaluation": evaluation()})


def pod_status(*, phase: str = "Running", **container: Any) -> Raw:
    """Status of a step's pod whose container has this state: `running`, `waiting` or `terminated`."""
    state = {kind: value for kind, value in container.items() if kind in {"running", "waiting", "terminated"}}
    return {
        "phase": phase,
        "podIP": "127.0.0.1",
        "containerStatuses": [
            {
                "name": "step",
                "state": state,
                "lastState": {},
                "ready": "running" in state,
                "restartCount": 0,
                "image": "trainer",
                "imageID": "",
            }
        ],
    }


def terminated(code: int, message: str = "", *, reason: str = "", at: float = NOW) -> Raw:
    return {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "message": message,
        "startedAt": to_rfc3339(at - 30),
        "finishedAt": to_rfc3339(at),
    }


def ended(code: int, message: str = "", *, reason: str = "", at: float = NOW) -> Raw:
    """Status of a step's pod that has ended."""
    state = terminated(code, message, reason=reason, at=at)
    return pod_status(phase="Succeeded" if code == 0 else "Failed", terminated=state)


def said(answer: Outcome, code: int = 0, *, at: float = NOW) -> Raw:
    """Status of a step's pod that has ended with a last word."""
    return ended(code, answer.dump_json(), at=at)


def running(at: float = NOW) -> Raw:
    return pod_status(running={"startedAt": to_rfc3339(at)})


def job_condition(kind: str, reason: str = "", message: str = "", at: float = NOW) -> Raw:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": to_rfc3339(at),
        "lastProbeTime": to_rfc3339(at),
    }


def fetched(weights: str, digest: str) -> str:
    """What the fetch container says after it fetched a version."""
    return FetchMessage(outcome="Fetched", uri=weights.partition("@")[0], digest=digest).dump_json()


def fetch_failed(reason: str, message: str = "", file: str = "") -> str:
    return FetchMessage(outcome="Failed", reason=reason, message=message or f"says {reason}", file=file).dump_json()


def deployment(*, weights: str = "", replicas: int = 2, wired: bool = True, namespace: str = "team") -> Raw:
    """A serving Deployment that has settled on its template."""
    variable = {"name": "SKILL_WEIGHTS", "valueFrom": {"fieldRef": {"fieldPath": WEIGHTS_FIELD_PATH}}}
    default = {"name": "SKILL_DEFAULT", "value": MODEL}
    fetch = {"name": "weights", "image": "store", "args": ["fetch", "--to", "/weights"], "env": [default, variable]}
    annotations = {"annotations": {WEIGHTS_ANNOTATION: weights}} if weights else {}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "support-llm", "namespace": namespace, "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "support-llm"}},
            "template": {
                "metadata": {"labels": {"app": "support-llm"}, **annotations},
                "spec": {
                    "initContainers": [fetch] if wired else [],
                    "containers": [{"name": "server", "image": "engine"}],
                },
            },
        },
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        },
    }


def serving_status(message: str, *, fetch_code: int = 0, ready: bool = True, engine: Raw | None = None) -> Raw:
    """Status of a serving pod: what its fetch container said, and how its engine is."""
    fetch_state = {"terminated": terminated(fetch_code, message)}
    return {
        "phase": "Running" if ready else "Pending",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "initContainerStatuses": [
            {"name": "weights", "state": fetch_state, "lastState": {}, "restartCount": 0, "ready": fetch_code == 0,
             "image": "store", "imageID": ""},
        ],
        "containerStatuses": [
            {"name": "server", "state": {"running": {"startedAt": to_rfc3339(NOW)}} if ready else {}, "lastState": {},
             "restartCount": 0, "ready": ready, "image": "engine", "imageID": ""} | (engine or {}),
        ],
    }  # fmt: skip


def serving_pod(index: int, weights: str, status: Raw) -> Raw:
    annotations = {WEIGHTS_ANNOTATION: weights} if weights else {}
    return {
        "metadata": {
            "name": f"support-llm-{index}",
            "namespace": "team",
            "uid": f"uid-of-support-llm-{index}",
            "annotations": annotations,
        },
        "status": status,
    }


def pretty(raw: Any) -> str:
    return json.dumps(raw, indent=1, sort_keys=True)
