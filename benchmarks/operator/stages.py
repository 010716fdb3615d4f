"""What KWOK does with nodes and pods (Stage documents): checks and promotions end well, trainers run on.

Source: sigs.k8s.io/kwok v0.7.0, kustomize/stage, whose fast stages these are cut down from.
"""

from __future__ import annotations

from typing import Any

from tests.operator import raw
from tests.operator.raw import Step

TRAINER_ADDRESS = "127.77.0.1"
"""Of every trainer pod: a loopback address that nobody else uses, so that no request leaves the machine."""

_NOT_DELETED = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
_PENDING = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}


def _stage(name: str, kind: str, match: list[dict[str, Any]], **following: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": match},
            "next": following,
        },
    }


def _pod(step: str, phase: str, state: str) -> dict[str, Any]:
    """Returns what becomes of a pending pod of a step."""
    label = {"key": '.metadata.labels["sdft.dev/step"]', "operator": "In", "values": [step]}
    status = f"""\
phase: {phase}
podIP: {TRAINER_ADDRESS}
startTime: {{{{ Now | Quote }}}}
containerStatuses:
- name: step
  image: image
  imageID: ""
  ready: {str(phase == "Running").lower()}
  restartCount: 0
  state:
    {state}
"""
    return _stage(f"pod-{step}", "Pod", [_NOT_DELETED, _PENDING, label], statusTemplate=status)


def _said(step: Step) -> str:
    word = raw.outcome(step).dump_json().replace("'", "''")
    times = "startedAt: {{ Now | Quote }}, finishedAt: {{ Now | Quote }}"
    return f"terminated: {{exitCode: 0, reason: Completed, {times}, message: '{word}'}}"


_NODE_STATUS = """\
conditions:
{{ range NodeConditions }}
- {lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}, message: {{ .message | Quote }},
   reason: {{ .reason | Quote }}, status: {{ .status | Quote }}, type: {{ .type | Quote }}}
{{ end }}
"""
_NOT_READY = {
    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
    "operator": "NotIn",
    "values": ["True"],
}

STAGES = (
    _stage("node-ready", "Node", [_NOT_READY], statusTemplate=_NODE_STATUS),
    _pod("check", "Succeeded", _said(Step.CHECK)),
    _pod("train", "Running", "running: {startedAt: {{ Now | Quote }}}"),
    _pod("promote", "Succeeded", _said(Step.PROMOTE)),
    _stage(
        "pod-delete", "Pod", [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
        finalizers={"empty": True}, delete=True,
    ),
)  # fmt: skip
