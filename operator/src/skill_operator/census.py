"""What there is now, for Prometheus: counted at each scrape from what the watch brought last, never added up.

So a number cannot drift, and an update's own series end with its work: they carry its name, and only updates that are
not settled have them. It decides nothing and asks nobody.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skill_operator.api import ConditionType, Phase, to_unix
from skill_operator.conditions import is_settled
from skill_operator.status import Rollout, Status, Training, read

_WAITS = {
    Phase.QUEUED: ConditionType.QUEUED,
    Phase.SUSPENDED: ConditionType.SUSPENDED,
    Phase.AWAITING_APPROVAL: ConditionType.PUBLISHED,
}
"""Phases in which nothing is expected to happen by itself, and the condition whose time is their beginning.

Where there is no such condition (Kueue's queue), the beginning is when this process first saw it so.
"""
_IN_ROLLOUT = (Phase.ROLLING_OUT, Phase.SOAKING)
_UPDATE = ["namespace", "name"]


@dataclass(frozen=True, slots=True)
class _Life:
    """An update that is not settled."""

    namespace: str
    name: str
    phase: Phase
    signs: tuple[object, ...]
    """What changes when it comes forward."""
    progressed: float
    """When one of them changed, Unix seconds."""
    waits_since: float
    """Where it waits."""
    is_held: bool
    """Neither at work nor stalled: somebody asked for the stop."""
    stalled: str
    """The reason why it stalls; empty where it does not."""
    rollback_since: float | None
    pods: tuple[float, float] | None
    """Of a rollout: how many are proved to serve what they should, and how many there are."""
    training: Training | None
    """Live values, while it trains."""

    @property
    def labels(self) -> list[str]:
        return [self.namespace, self.name]


class Census(Collector):
    """Gauges of all updates by phase, and of each unsettled update by name."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._settled: dict[str, Phase] = {}
        self._lives: dict[str, _Life] = {}

    def take(self, body: Mapping[str, Any]) -> None:
        """Takes an update as the watch brought it."""
        uid, status = body["metadata"]["uid"], read(body.get("status") or {})
        phase = Phase(status.phase or Phase.PENDING)
        if is_settled(body):
            self.drop(uid)
            self._settled[uid] = phase
            return
        self._settled.pop(uid, None)
        self._lives[uid] = self._life(body["metadata"], phase, status, self._lives.get(uid))

    def drop(self, uid: str) -> None:
        """Forgets an update that is gone."""
        self._settled.pop(uid, None)
        self._lives.pop(uid, None)

    def __contains__(self, uid: str) -> bool:
        return uid in self._settled or uid in self._lives

    @property
    def uids(self) -> frozenset[str]:
        """All updates that are counted now."""
        return frozenset((*self._settled, *self._lives))

    def _life(self, metadata: Mapping[str, Any], phase: Phase, status: Status, before: _Life | None) -> _Life:
        training, rollout = status.training, status.rollout
        signs: tuple[object, ...] = (*_further(rollout), phase)
        if rollout and phase in _IN_ROLLOUT:
            signs = _further(rollout)  # a pod that goes and comes back leads from one to the other, and no further
        if training:
            signs += (training.attempt, training.stage, training.step, training.heartbeat_time)
        progressed = before.progressed if before and before.signs == signs else self.clock()
        waits, stalled = status.condition(_WAITS.get(phase, "")), status.condition(ConditionType.STALLED)
        return _Life(
            namespace=metadata["namespace"],
            name=metadata["name"],
            phase=phase,
            signs=signs,
            progressed=progressed,
            waits_since=(to_unix(waits.last_transition_time) if waits else None) or progressed,
            is_held=bool(status.conditions) and not (stalled or status.is_true(ConditionType.RECONCILING)),
            stalled=stalled.reason if stalled else "",
            rollback_since=to_unix(rollout.rollback.started_at) if rollout and rollout.rollback else None,
            pods=_pods(rollout.pods_verified) if rollout else None,
            training=None if status.condition(ConditionType.TRAINED) else training,
        )

    def collect(self) -> Iterator[Metric]:
        """Yields all gauges; called by the thread that serves them."""
        lives, settled = list(self._lives.values()), list(self._settled.values())
        updates = _gauge("updates", "SkillUpdates by phase", "phase")
        numbers = Counter((*settled, *(life.phase for life in lives)))
        for phase in Phase:
            updates.add_metric([phase.value], numbers[phase])
        yield updates
        # An update made anew has its predecessor's name, and no series may appear twice in a scrape.
        named = list({(life.namespace, life.name): life for life in lives}.values())
        yield from _of_each(named)
        yield from _of_training(named)


def _further(rollout: Rollout | None) -> tuple[object, ...]:
    if rollout is None:
        return ()
    hold, soak = rollout.hold, rollout.soak
    return rollout.most_verified, hold and (hold.proved, hold.ended), soak and soak.until, rollout.promoting


def _pods(verified: str) -> tuple[float, float] | None:
    """Returns the numbers of `1/2`; a status is a user's to write, and may hold anything."""
    done, _, all_of_them = verified.partition("/")
    return (float(done), float(all_of_them)) if done.isdecimal() and all_of_them.isdecimal() else None


def _of_each(lives: list[_Life]) -> Iterator[Metric]:
    phase = _gauge("update_phase", "1 for an unsettled update, by phase", *_UPDATE, "phase")
    progress = _gauge(
        "update_progress_timestamp_seconds",
        "When an unsettled update last came forward (phase, stage, step, heartbeat, more verified pods), as seen by "
        "this process; none while it waits for its turn or for a person",
        *_UPDATE,
    )
    waiting = _gauge(
        "update_waiting_timestamp_seconds", "Since when an update waits (Queued, Suspended, AwaitingApproval)",
        *_UPDATE, "phase",
    )  # fmt: skip
    stalled = _gauge("update_stalled", "1 for an unsettled update that needs somebody, by reason", *_UPDATE, "reason")
    rollback = _gauge(
        "update_rollback_timestamp_seconds",
        "Since when an update has been on its way back, its candidate not yet replaced on every pod",
        *_UPDATE,
    )
    verified = _gauge("update_pods_verified", "Serving pods that are proved, of an update in its rollout", *_UPDATE)
    pods = _gauge("update_pods", "Serving pods of an update in its rollout", *_UPDATE)
    for life in lives:
        phase.add_metric([*life.labels, life.phase.value], 1)
        if life.phase in _WAITS:
            waiting.add_metric([*life.labels, life.phase.value], life.waits_since)
        elif not life.is_held:
            progress.add_metric(life.labels, life.progressed)
        if life.stalled:
            stalled.add_metric([*life.labels, life.stalled], 1)
        if life.rollback_since is not None:
            rollback.add_metric(life.labels, life.rollback_since)
        if life.pods is not None:
            verified.add_metric(life.labels, life.pods[0])
            pods.add_metric(life.labels, life.pods[1])
    yield from (phase, progress, waiting, stalled, rollback, verified, pods)


def _of_training(lives: list[_Life]) -> Iterator[Metric]:
    texts = {
        "loss": "Loss of the newest step",
        "step": "Optimiser steps done",
        "total_steps": "Optimiser steps of the whole run",
        "eta_seconds": "Seconds until training ends, as the trainer expects",
    }
    for value, text in texts.items():
        family = _gauge(f"training_{value}", f"{text}, of an update that trains now", *_UPDATE)
        for life in lives:
            number = getattr(life.training, value, None)
            if number is not None:
                family.add_metric(life.labels, number)
        yield family


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"skill_operator_{name}", text, labels=labels)
