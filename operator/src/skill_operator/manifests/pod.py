"""The pod in which a step runs: restricted, without a service-account token, with the tenant's own credentials.

Pure. Quantities are strings and nothing is left to an admission webhook, so that the pod passes the `restricted` Pod
Security Standard in any namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skill_contract.spec import Storage
from skill_contract.step import CONFIG_VARIABLE
from skill_operator.api import STEP_CONTAINER

USER = 65532
_PLACELESS_KEYS = ("image", "imagePullPolicy", "imagePullSecrets", "env")
"""What a pod template needs wherever the pod runs; the rest of it says where the training pod is placed."""
_PLACELESS_VOLUMES = frozenset({"configMap", "secret", "projected", "persistentVolumeClaim", "nfs"})
"""What `env` may name files of (AWS_CA_BUNDLE) and `file:///` repositories lie on; the others belong to a node."""


@dataclass(frozen=True, slots=True)
class Images:
    """Where the steps' programs come from."""

    trainer: str
    """Runs `check` and `train`."""
    store: str
    """Runs `promote`."""
    pull_policy: str = ""
    """Empty: Kubernetes' default for the tag."""
    version: str = ""
    """The operator's own version, for labels."""


def step_pod(
    *,
    image: str,
    pull_policy: str,
    arguments: list[str],
    config: str,
    storage: Storage,
    resources: Mapping[str, Any],
    template: Mapping[str, Any],
    ports: list[dict[str, Any]] | None = None,
    grace_seconds: int = 30,
) -> dict[str, Any]:
    """Returns a pod spec with one container, `step`.

    Args:
        config: JSON of the step's configuration.
        template: what a user may say about pods, in Kubernetes' words (`spec.training.template` or a part of it).
        grace_seconds: time between SIGTERM and SIGKILL.
    """
    container: dict[str, Any] = {
        "name": STEP_CONTAINER,
        "image": template.get("image") or image,
        "args": arguments,
        "env": _environment(config, storage, template),
        "resources": dict(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "scratch", "mountPath": "/scratch"},
            *template.get("volumeMounts", ()),
        ],
    }
    policy = template.get("imagePullPolicy") or pull_policy
    container |= {"imagePullPolicy": policy} if policy else {}
    container |= {"ports": ports} if ports else {}
    container |= {"envFrom": [{"secretRef": {"name": storage.secret_ref.name}}]} if storage.secret_ref else {}
    return _pod_around(container, storage, template) | {"terminationGracePeriodSeconds": grace_seconds}


def placeless(template: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a template that holds for every step; without GPU nodes, priorities and scratch volumes."""
    volumes = [volume for volume in template.get("volumes", ()) if _is_placeless(volume)]
    names = {volume["name"] for volume in volumes}
    mounts = [mount for mount in template.get("volumeMounts", ()) if mount["name"] in names]
    kept = {key: template[key] for key in _PLACELESS_KEYS if key in template}
    return kept | {"volumes": volumes, "volumeMounts": mounts}


def _is_placeless(volume: Mapping[str, Any]) -> bool:
    return volume["name"] != "scratch" and not _PLACELESS_VOLUMES.isdisjoint(volume)


def _pod_around(container: dict[str, Any], storage: Storage, template: Mapping[str, Any]) -> dict[str, Any]:
    volumes: dict[str, dict[str, Any]] = {"tmp": {"emptyDir": {}}, "scratch": {"emptyDir": {}}}
    volumes |= {volume["name"]: _source(volume) for volume in template.get("volumes", ())}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        # Identity of a cloud (IRSA, workload identity) reaches the pod through volumes of its own or the node's
        # metadata server: no step ever speaks with the Kubernetes API.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
    }
    pod |= {"serviceAccountName": storage.service_account_name} if storage.service_account_name else {}
    passed_on = (
        "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName",
        "runtimeClassName", "schedulerName", "imagePullSecrets",
    )  # fmt: skip
    return pod | {key: template[key] for key in passed_on if template.get(key)}


def _source(volume: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in volume.items() if key != "name"}


def _environment(config: str, storage: Storage, template: Mapping[str, Any]) -> list[dict[str, Any]]:
    # Nothing else: what stands here wins over the Secret's own words, such as its region (core/v1 Container.envFrom).
    # Kubernetes expands $(NAME) in values; a doubled dollar stays one (core/v1 EnvVar.value).
    variables = [{"name": CONFIG_VARIABLE, "value": config.replace("$", "$$")}]
    if storage.endpoint:
        variables.append({"name": "AWS_ENDPOINT_URL_S3", "value": storage.endpoint})
    return [*variables, *template.get("env", ())]
