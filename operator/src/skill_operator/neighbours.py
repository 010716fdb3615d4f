"""The updates at work, as the watch brings them: who waits for whom is known without asking.

Pure, and no more than an index. It may lag behind the API server; so before anything is done because of it, a Lookout
asks there as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skill_operator.api import ConditionType, Reason
from skill_operator.names import version_in
from skill_operator.observed import Neighbour
from skill_operator.status import Status, is_reverting, read

Raw = Mapping[str, Any]

_NEEDS_A_PERSON = {
    Reason.AWAITING_APPROVAL, Reason.INVALID_SPEC, Reason.NAME_CONFLICT, Reason.CREATE_REFUSED,
    Reason.TARGET_MISSING, Reason.CONTAINER_MISSING, Reason.NOT_WIRED, Reason.SHARED_KV_CACHE,
    Reason.NO_PREVIOUS, Reason.TARGET_UNFIT, Reason.TARGET_OUT_OF_REACH, Reason.JOBSET_MISSING,
}  # fmt: skip
"""Reasons of an update that goes on only when somebody does something."""


class Neighbours:
    """Updates that others have to know of, by their model repository."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}
        self._of_model: dict[str, dict[str, Neighbour]] = {}
        self._rolling: dict[str, Neighbour] = {}

    def take(self, raw: Raw) -> Neighbour | None:
        """Takes an update as it is now, and returns what others need to know of it.

        None for one that has ended without moving a head: it is nobody's neighbour.
        """
        uid = raw["metadata"]["uid"]
        self.drop(uid)
        if not is_neighbour(raw):
            return None
        one = neighbour(raw)
        self._models[uid] = one.model
        self._of_model.setdefault(one.model, {})[uid] = one
        if one.rolling:
            self._rolling[uid] = one
        return one

    def drop(self, uid: str) -> None:
        """Forgets an update."""
        model = self._models.pop(uid, None)
        if model is None:
            return
        of_model = self._of_model[model]
        del of_model[uid]
        if not of_model:
            del self._of_model[model]
        self._rolling.pop(uid, None)

    def of(self, uri: str) -> tuple[Neighbour, ...]:
        """Returns the updates of a model repository, and those of others that are rolling a target."""
        own = self._of_model.get(model_key(uri), {})
        return (*own.values(), *(other for uid, other in self._rolling.items() if uid not in own))

    def __len__(self) -> int:
        return len(self._models)


def is_neighbour(raw: Raw) -> bool:
    """Returns whether other updates need to know of this one: it is at work, forwards or back, or has moved a head."""
    status = read(raw.get("status") or {})
    return not status.is_final or is_reverting(raw) or bool(_promoted_from(status) or _took_back(status)[0])


def neighbour(raw: Raw) -> Neighbour:
    """Returns what other updates need to know of this one."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, read(raw.get("status") or {})
    is_queued = status.is_true(ConditionType.QUEUED) or status.is_true(ConditionType.SUSPENDED)
    serving = (spec.get("serving") or {}).get("targetRef") or {}
    going_back, rolled_out = is_reverting(raw), status.condition(ConditionType.ROLLED_OUT)
    took_back, took_back_at = _took_back(status)
    is_rolling = status.rollout is not None and (going_back or not status.is_final)
    return Neighbour(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        model=model_key((spec.get("model") or {}).get("uri", "")),
        stands_aside=not is_rolling and not going_back and (bool(spec.get("suspend")) or _stands_aside(status)),
        is_active=status.start_time is not None and not is_queued,
        promoted_from=_promoted_from(status),
        promoted_at=rolled_out.last_transition_time if rolled_out and rolled_out.status == "True" else "",
        rolling=_target(metadata["namespace"], serving) if is_rolling and serving else "",
        is_reverting=going_back,
        holds=() if status.is_final and not going_back else _versions(status),
        leaves=_left_behind(_target(metadata["namespace"], serving) if serving else "", status),
        took_back=took_back,
        took_back_at=took_back_at,
    )


def _stands_aside(status: Status) -> bool:
    ready = status.condition(ConditionType.READY)
    return status.is_final or (ready is not None and ready.reason in _NEEDS_A_PERSON)


def _promoted_from(status: Status) -> str:
    is_head = status.is_true(ConditionType.ROLLED_OUT) and not status.is_true(ConditionType.REVERTED)
    return status.parent.digest if is_head and status.parent else ""


def _took_back(status: Status) -> tuple[str, str]:
    """Returns the digest of a version that was reverted, and when: those who train from it train in vain."""
    reverted = status.condition(ConditionType.REVERTED)
    if reverted is None or reverted.status != "True" or status.published is None:
        return "", ""
    return status.published.digest, reverted.last_transition_time


def _target(namespace: str, reference: Raw) -> str:
    return target_key(namespace, reference.get("kind", "Deployment"), reference.get("name", ""))


def target_key(namespace: str, kind: str, name: str) -> str:
    """Returns how a serving target is called among all of the cluster."""
    return f"{namespace}/{kind}/{name}"


def _versions(status: Status) -> tuple[str, ...]:
    rollout = (status.rollout.previous, status.rollout.candidate) if status.rollout else ()
    named = [status.parent.version if status.parent else "", status.published.version if status.published else ""]
    return tuple(name for name in (*named, *(version_in(weights) for weights in rollout)) if name)


def _left_behind(target: str, status: Status) -> tuple[str, str]:
    is_served = target and _promoted_from(status) and status.published
    return (target, status.published.version) if is_served and status.published else ("", "")


def model_key(uri: str) -> str:
    """Returns what two URIs of one model repository have in common."""
    return uri.rstrip("/")


def of_model(uri: str) -> tuple[str, ...]:
    """Returns field selectors that find the updates of a model repository: it is written with or without a slash.

    Source: CRD selectableFields; apimachinery, fields.EscapeValue.
    """
    model = _escaped(model_key(uri))
    return f"spec.model.uri={model}", f"spec.model.uri={model}/"


def of_target(name: str) -> str:
    """Returns a field selector that finds the updates of the serving targets of a name, of whatever kind."""
    return f"spec.serving.targetRef.name={_escaped(name)}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
