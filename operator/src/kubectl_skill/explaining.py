"""Why an update does not go on, and what to do: the document that `explain` prints.

Pure. The words about a reason come from `reasons`; what pods and events say is added as they say it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubectl_skill.picture import Picture, Tone, clean
from kubectl_skill.reasons import all_words, plain
from kubectl_skill.stages import State
from skill_contract.evaluation import Verdict
from skill_contract.model import Document
from skill_operator.api import STEP_CONTAINER, STEP_LABEL, Phase, to_unix
from skill_operator.reading import container_status, last_end, why_unschedulable

Raw = Mapping[str, Any]
NOTICED_SECONDS = 30
"""A running operator has given a new update its first status long before that."""
SILENT_SECONDS = 120
"""A trainer makes progress at least so often, but for long steps."""
SHOWN_EVENTS = 6
_STARTING = {"ContainerCreating", "PodInitializing"}


class Evidence(Document):
    """Something that somebody in the cluster says about it."""

    source: str
    """Such as `pod refund-tool-train-abcde` or `event 12 min ago`."""
    words: str


class Explanation(Document):
    namespace: str
    name: str
    phase: str
    tone: Tone
    reason: str
    message: str
    means: str
    do: str
    evidence: tuple[Evidence, ...] = ()
    commands: tuple[str, ...] = ()
    """To look further."""


def explain(seen: Picture, pods: Iterable[Raw], events: Iterable[Raw], now: float) -> Explanation:
    """Returns the explanation of a picture.

    Args:
        pods: of the update's steps.
        events: about the update and those pods, the oldest first.
    """
    means, do = _words(seen, now)
    judged, told = _besides(seen, _failure(seen)), _besides(seen, _events(events))
    found = (*_marks(seen), *judged, *_silence(seen, now), *_pods(pods), *told)
    return Explanation(
        namespace=seen.namespace,
        name=seen.name,
        phase=seen.phase,
        tone=seen.tone,
        reason=seen.reason,
        message=seen.message,
        means=means,
        do=do,
        evidence=found,
        commands=tuple(_commands(seen)),
    )


def _besides(seen: Picture, found: Iterable[Evidence]) -> Iterator[Evidence]:
    """Yields what the message does not say already."""
    said = seen.message
    return (each for each in found if not said or (each.words not in said and said not in each.words))


def _words(seen: Picture, now: float) -> tuple[str, str]:
    """Returns what it means and what to do."""
    if not seen.reason:
        return _unnoticed(seen, now)
    words = all_words().get(seen.reason)
    if words is None:
        return (
            f"this plugin does not know {seen.reason}: the operator is newer, or it is a step's own word",
            "what the message says",
        )
    return plain(words.means), plain(words.do)


def _unnoticed(seen: Picture, now: float) -> tuple[str, str]:
    since = to_unix(seen.created) or now
    if now - since < NOTICED_SECONDS:
        return "it is new", "wait some seconds"
    means = (
        f"no operator has written a word into its status: none runs, or none that watches namespace {seen.namespace}"
    )
    do = (
        "see that the operator's pod runs and is ready (kubectl get pods -A -l app.kubernetes.io/name=skillupdate), "
        "and that the chart's watchNamespaces has this namespace, or is empty for all"
    )
    return means, do


def _marks(seen: Picture) -> Iterator[Evidence]:
    for mark in seen.marks:
        yield Evidence(source=f"condition {mark.type}", words=mark.message)


def _failure(seen: Picture) -> Iterator[Evidence]:
    failure = seen.failure
    if failure and failure.message != seen.message:
        where = f"pod {failure.pod}" if failure.pod else "its last pod"
        yield Evidence(source=where, words=f"{failure.reason}: {failure.message}")
    for stage in seen.stages:
        if stage.state is State.FAILED and stage.note and stage.note != seen.message:
            yield Evidence(source=f"stage {stage.name}", words=stage.note)
    comparisons = (seen.evaluation.new_skill, *seen.evaluation.retention) if seen.evaluation else ()
    for each in comparisons:
        if each and each.verdict != Verdict.PASSED and each.reason:
            yield Evidence(source=f"gate {each.suite}", words=each.reason)


def _silence(seen: Picture, now: float) -> Iterator[Evidence]:
    training = seen.training
    beat = to_unix(training.heartbeat_time) if training else None
    if training and seen.phase in {Phase.TRAINING, Phase.EVALUATING} and beat and now - beat > SILENT_SECONDS:
        words = f"no progress for {int(now - beat)} s; after heartbeatTimeoutSeconds it is started again"
        yield Evidence(source=f"pod {training.pod}", words=words)


def _pods(pods: Iterable[Raw]) -> Iterator[Evidence]:
    for pod in pods:
        words = _trouble(clean(pod))
        if words:
            metadata = pod["metadata"]
            step = (metadata.get("labels") or {}).get(STEP_LABEL, "step")
            yield Evidence(source=f"{step} pod {metadata['name']}", words=words)


def _trouble(pod: Raw) -> str:
    """Returns why a step's pod does not run, or did not end well, in Kubernetes' words; empty where it does."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return ""
    if unschedulable := why_unschedulable(status):
        return unschedulable
    container = container_status(status.get("containerStatuses"), STEP_CONTAINER)
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") and waiting["reason"] not in _STARTING:
        return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    end = last_end(container)
    if end.get("exitCode"):
        return f"ended with exit code {end['exitCode']} ({end.get('reason', 'no reason')})"
    return f"{status['reason']}: {status.get('message', '')}" if status.get("reason") else ""


def _events(events: Iterable[Raw]) -> Iterator[Evidence]:
    """Yields the newest warnings, each once."""
    warnings = {(e["involvedObject"].get("name"), e.get("reason"), e.get("message")): e
                for e in events if e.get("type") == "Warning"}  # fmt: skip
    for event in list(warnings.values())[-SHOWN_EVENTS:]:
        about = event["involvedObject"]
        words = f"{event.get('reason', '')}: {event.get('message', '')}"
        yield Evidence(source=f"event of {about.get('kind')} {about.get('name')}", words=clean(words))


def _commands(seen: Picture) -> Iterator[str]:
    pod = (seen.failure.pod if seen.failure else None) or (seen.training.pod if seen.training else None)
    if pod and (seen.tone is Tone.BAD or seen.phase == Phase.TRAINING):
        yield f"kubectl logs -n {seen.namespace} {pod}"
    for command in seen.next:
        if " explain " not in command:
            yield command
    if seen.target and seen.rollout is not None and seen.tone is Tone.BAD:
        kind, _, name = seen.target.partition(" ")
        yield f"kubectl describe -n {seen.namespace} {kind.lower()} {name}"
