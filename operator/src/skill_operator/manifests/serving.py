"""What the operator owns of somebody else's workload: the weights annotation of its pod template, and its hold.

Pure. The body is for server-side apply: what it leaves out is given up, and goes when nobody else owns it.
"""

from __future__ import annotations

from typing import Any

from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Place
from skill_operator.api import WEIGHTS_ANNOTATION, WEIGHTS_FIELD_PATH
from skill_operator.status import Published

DRAIN_SECONDS = 15
"""How long an engine goes on answering while its pod is being replaced: half of the time that Kubernetes gives it."""


def weights_of(version: Published) -> str:
    """Returns the annotation that names a version: `<folder>@<digest of its manifest>`."""
    return f"{version.uri}@{version.digest}"


def digest_in(weights: str) -> str:
    """Returns the digest in an annotation; empty where there is none."""
    return weights.rpartition("@")[2] if "@" in weights else ""


def version_uri(model_uri: str, version: str) -> str:
    """Returns the folder of a version in a model repository."""
    return f"{model_uri.rstrip('/')}/versions/{version}"


def weights_patch(place: Place, weights: str, *, hold: bool = False) -> dict[str, Any]:
    """Returns the apply configuration that sets the annotation, or gives it up where `weights` is empty.

    Args:
        hold: also pause the rollout; without it a pause of ours ends.
    """
    patch: dict[str, Any] = {
        "apiVersion": place.api_version,
        "kind": place.kind,
        "metadata": {"name": place.name},
    }
    for path in place.paths:
        inner = patch
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
        if weights:
            inner[path[-1]] = {WEIGHTS_ANNOTATION: weights}
    if hold:
        patch["spec"]["paused"] = True
    return patch


def wiring(spec: SkillUpdateSpec) -> str:
    """Returns the lines that the pod template of a target without the fetch init container has to get."""
    storage, serving = spec.storage, spec.serving
    assert serving is not None, "asked for a target"
    endpoint = f'\n  - {{name: AWS_ENDPOINT_URL_S3, value: "{storage.endpoint}"}}' if storage.endpoint else ""
    secret = f"\n  envFrom: [{{secretRef: {{name: {storage.secret_ref.name}}}}}]" if storage.secret_ref else ""
    return f"""\
initContainers:
- name: weights
  image: <your registry>/skillupdate/store
  args: [fetch, --to, /weights]
  env:
  - {{name: SKILL_DEFAULT, value: "{spec.model.uri}"}}
  - name: SKILL_WEIGHTS
    valueFrom: {{fieldRef: {{fieldPath: "{WEIGHTS_FIELD_PATH}"}}}}{endpoint}{secret}
  volumeMounts: [{{name: weights, mountPath: /weights}}]
containers:
- name: {serving.container}
  lifecycle: {{preStop: {{sleep: {{seconds: {DRAIN_SECONDS}}}}}}}
  volumeMounts: [{{name: weights, mountPath: /weights, readOnly: true}}]
volumes: [{{name: weights, emptyDir: {{}}}}]"""
