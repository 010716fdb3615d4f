"""What the operator owns of somebody else's workload: what it is told to serve, and its hold.

Pure. The body is for server-side apply: what it leaves out is given up, and goes when nobody else owns it.
"""

from __future__ import annotations

from typing import Any

from skill_contract.spec import Serving, SkillUpdateSpec, Storage
from skill_operator.actions import Place
from skill_operator.api import WEIGHTS_FIELD_PATH
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


def weights_patch(place: Place, weights: str, *, hold: bool = False, beside: str = "") -> dict[str, Any]:
    """Returns the apply configuration that tells a target its version, or gives that up where `weights` is empty.

    Args:
        hold: also hold the rollout; without it a hold of ours ends.
        beside: the version before, for targets that keep it.
    """
    patch: dict[str, Any] = {
        "apiVersion": place.api_version,
        "kind": place.kind,
        "metadata": {"name": place.name},
    }
    for path in place.paths:
        inside = _at(patch, path[:-1])
        if weights:
            inside[path[-1]] = place.told(weights)
    if hold:
        _at(patch, place.hold[:-1])[place.hold[-1]] = place.hold_value
    if beside and place.beside:
        _at(patch, place.beside[:-1])[place.beside[-1]] = beside
    return patch


def _at(patch: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Returns the map at a path, which is made where it is not there."""
    for step in path:
        patch = patch.setdefault(step, {})
    return patch


def adapter_config_map(target: str) -> str:
    """Returns the name of the ConfigMap by which the pods of a target are told their adapter."""
    return f"{target}-adapter"


def wiring(spec: SkillUpdateSpec) -> str:
    """Returns the lines that the pod template of a target that is not told its version has to get."""
    serving = spec.serving
    assert serving is not None, "asked for a target"
    return _agent(spec, serving) if serving.strategy == "Adapter" else _fetcher(spec, serving)


def _access(storage: Storage) -> tuple[str, str]:
    """Returns the lines of endpoint and credentials."""
    endpoint = f'\n  - {{name: AWS_ENDPOINT_URL_S3, value: "{storage.endpoint}"}}' if storage.endpoint else ""
    secret = f"\n  envFrom: [{{secretRef: {{name: {storage.secret_ref.name}}}}}]" if storage.secret_ref else ""
    return endpoint, secret


def _agent(spec: SkillUpdateSpec, serving: Serving) -> str:
    endpoint, secret = _access(spec.storage)
    config_map = adapter_config_map(serving.target_ref.name)
    variables = f"\n  env:{endpoint}" if endpoint else ""
    return f"""\
initContainers:
- name: adapters                    # after the fetch container, whose volume it reads
  image: <your registry>/skillupdate/store
  restartPolicy: Always
  args: [adapters, --engine, vllm, --model, {serving.served_model_name or "<served model name>"},
         --port, "{serving.port}", --engine-url, "http://127.0.0.1:<its own port>", --told, /told]{variables}{secret}
  ports: [{{containerPort: {serving.port}}}]
  readinessProbe: {{httpGet: {{path: /skillupdate/ready, port: {serving.port}}}, periodSeconds: 2}}
  volumeMounts:
  - {{name: weights, mountPath: /weights, readOnly: true}}
  - {{name: adapters, mountPath: /adapters}}
  - {{name: told, mountPath: /told, readOnly: true}}
containers:
- name: {serving.container}
  volumeMounts: [{{name: adapters, mountPath: /adapters, readOnly: true}}]
volumes:
- {{name: adapters, emptyDir: {{}}}}
- {{name: told, configMap: {{name: {config_map}, optional: true}}}}
# and, beside the workload, a ConfigMap without data, which the operator fills:
#   {{apiVersion: v1, kind: ConfigMap, metadata: {{name: {config_map}}}}}"""


def _fetcher(spec: SkillUpdateSpec, serving: Serving) -> str:
    endpoint, secret = _access(spec.storage)
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
