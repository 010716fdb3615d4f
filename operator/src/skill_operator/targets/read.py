"""Reads a serving target of whatever kind, and its pods, into the facts that `steps` decide by.

Pure: what the API server said comes in; `sight` asks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from skill_contract.manifest import FetchMessage
from skill_contract.model import ContractError
from skill_operator.api import WEIGHTS_ANNOTATION, to_unix
from skill_operator.observed import ServingPod, Target
from skill_operator.reading import container_status, dying, is_true, last_end, why_unschedulable
from skill_operator.targets import engine
from skill_operator.targets.default import waiting_fetcher
from skill_operator.targets.deployment import Deployment
from skill_operator.targets.inferenceservice import InferenceService
from skill_operator.targets.kind import Kind, Raw, Standing, at, owner
from skill_operator.targets.leaderworkerset import LeaderWorkerSet
from skill_operator.targets.rollout import Rollout
from skill_operator.targets.statefulset import StatefulSet

KINDS: tuple[Kind, ...] = (Deployment(), StatefulSet(), LeaderWorkerSet(), Rollout(), InferenceService())
"""The kinds that there are."""


def kind_of(name: str) -> Kind:
    """Returns a kind by its name, which the contract has let through."""
    return next(kind for kind in KINDS if kind.name == name)


def is_going(raw: Raw) -> bool:
    """Returns whether an object is being deleted."""
    return bool(raw["metadata"].get("deletionTimestamp"))


def target(kind: Kind, raw: Raw, standing: Standing, pods: Iterable[Raw], container: str) -> Target:
    """Returns the serving target.

    Args:
        container: name of the engine's container.
    """
    return Target(
        kind=kind.name,
        name=raw["metadata"]["name"],
        place=standing.place,
        weights=_weights(standing),
        weights_manager=owner(standing.annotated, *((*path, standing.place.key) for path in standing.place.paths)),
        is_wired=bool(standing.fetchers),
        containers=standing.containers,
        replicas=standing.replicas,
        is_settled=standing.is_settled,
        state=standing.state,
        # An evicted pod stays as an object, Failed, beside the one that took its place.
        pods=tuple(_serving_pod(pod, standing, container) for pod in pods if not _is_over(pod)),
        unfit=standing.unfit,
        shared_cache=engine.shared_by_versions(standing.kv_cache) if standing.kv_cache else "",
        draft_model=standing.draft_model,
        waiting_fetcher=waiting_fetcher(standing),
        given_up=standing.given_up,
        held=standing.held,
        keeps_broken_pods=standing.keeps_broken_pods,
        pauser=standing.pauser,
        unheld=standing.unheld,
        template=standing.template,
        room=standing.room,
        uncreated=standing.uncreated,
        uncreated_since=standing.uncreated_since,
    )


def _is_over(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def _weights(standing: Standing) -> str:
    """Returns what it is told; where templates differ, by somebody's hand, all of them: no version is called so."""
    found = {at(standing.annotated, path).get(standing.place.key, "") for path in standing.place.paths}
    return found.pop() if len(found) == 1 else " and ".join(value or "none" for value in sorted(found))


def _serving_pod(raw: Raw, standing: Standing, container: str) -> ServingPod:
    metadata, status = raw["metadata"], raw.get("status") or {}
    engine = container_status(status.get("containerStatuses"), container)
    ended, fetched = last_end(engine), _last_fetch(status, standing.fetchers)
    return ServingPod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ip=status.get("podIP", ""),
        weights=(metadata.get("annotations") or {}).get(WEIGHTS_ANNOTATION, ""),
        ready=is_true(status, "Ready"),
        deleting=is_going(raw),
        fetch=_parsed(fetched.get("message", "")) if fetched else None,
        fetch_ended=to_unix(fetched.get("finishedAt")),
        created=to_unix(metadata.get("creationTimestamp")) or 0.0,
        blocked=_blocked(status),
        engine_restarts=engine.get("restartCount", 0),
        engine_out_of_memory=ended.get("reason") == "OOMKilled",
        engine_last_exit=to_unix(ended.get("finishedAt")),
        engine_message=f"exit code {ended.get('exitCode')}: {ended.get('message', '')}".rstrip(": ") if ended else "",
        unschedulable=why_unschedulable(status),
        dying=dying(status),
        answers=_answers(metadata.get("labels") or {}, standing.answering),
        tls_ports=frozenset(_tls_ports(raw.get("spec") or {})),
    )


def _answers(labels: Raw, answering: tuple[str, str] | None) -> bool:
    return answering is None or labels.get(answering[0]) == answering[1]


def _tls_ports(spec: Raw) -> Iterator[int]:
    """Yields the ports that the kubelet asks over TLS; of a sidecar before the engine, too.

    Source: core/v1 HTTPGetAction: `port` is a number, or the name of one of the container's ports.
    """
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        named = {port.get("name"): port["containerPort"] for port in container.get("ports") or ()}
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            asked = (container.get(probe) or {}).get("httpGet") or {}
            port = named.get(asked.get("port"), asked.get("port"))
            if asked.get("scheme") == "HTTPS" and isinstance(port, int):
                yield port


def _last_fetch(status: Raw, fetchers: tuple[str, ...]) -> Raw:
    """Returns the last end of the pod's fetch container, whichever of the templates' it has."""
    ends = (last_end(container_status(status.get("initContainerStatuses"), name)) for name in fetchers)
    return next((ended for ended in ends if ended), {})


_CANNOT_START = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
    "CreateContainerConfigError", "CreateContainerError",
})  # fmt: skip
"""Reasons of a waiting container that the kubelet gives for an image or a configuration (pkg/kubelet/images,
kuberuntime); CrashLoopBackOff is none: that container did start."""


def _blocked(status: Raw) -> str:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _CANNOT_START:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _parsed(message: str) -> FetchMessage | None:
    try:
        return FetchMessage.parse_json(message)
    except ContractError:
        return None
