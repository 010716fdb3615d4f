"""What must be true of a cell's whole history, whatever happened to it: nothing lost, twice, stuck or unverified.

Every function returns sentences about what is wrong; none is what is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from skill_contract.step import Step
from skill_operator.api import FINALIZER, RUN_LABEL, STEP_LABEL
from tests.chaos.actors import REVERT, is_step, promote_config
from tests.chaos.life import NAME, Cell, Ending
from tests.operator.api.place import Raw, annotation
from tests.operator.raw import CHILD, PARENT

TOLD_ONCE = frozenset({
    "Checked", "GatePassed", "VersionPublished", "RolloutStarted", "RollbackStarted", "Promoted", "Reverted",
})  # fmt: skip
"""Events that are told once in an update's life, in whatever words."""
_MILESTONES = {
    "Succeeded": ("Checked", "Trained", "Evaluated", "Published", "RolledOut"),
    "RolledBack": ("Checked", "Trained", "Evaluated", "Published"),
    "Reverted": ("Checked", "Trained", "Evaluated", "Published", "RolledOut", "Reverted"),
}


def violations(cell: Cell, ending: Ending, *, remakes: bool = False, reruns: int = 1) -> list[str]:
    """Returns everything that is wrong with a cell that has ended.

    Args:
        remakes: a Job that was deleted (by the fault, or for a suspension) may come again under its run number.
        reruns: how many runs a step may have had.
    """
    return [
        *_end(cell, ending),
        *_jobs(cell, remakes=remakes, reruns=reruns),
        *_pods(cell),
        *_promotions(cell),
        *_servings(cell, ending),
        *_events(cell),
    ]


def _end(cell: Cell, ending: Ending) -> Iterator[str]:
    """No lost update: the end is the one that it had to be, with every milestone; no stuck finalizer."""
    seen = (cell.phase, cell.weights, cell.head)
    wanted = (ending.phase, ending.served, ending.promoted)
    if ending.served == "gone":
        seen, wanted = seen[:2], wanted[:2]
    if seen != wanted:
        yield f"ended with phase, served, head {seen}, not {wanted}"
    if ending.reason and cell.reason != ending.reason:
        yield f"ended as {cell.reason}, not {ending.reason}"
    truth = {c["type"]: c["status"] for c in cell.status.get("conditions", [])}
    missing = [kind for kind in _MILESTONES.get(ending.phase, ()) if truth.get(kind) != "True"]
    if missing:
        yield f"milestones are missing: {missing}"
    if cell.update and FINALIZER in cell.update["metadata"].get("finalizers", ()):
        yield "the finalizer is still there"
    if cell.update is None and cell.jobs() and ending.served != "gone":
        yield "its Jobs are still there"


def _jobs(cell: Cell, *, remakes: bool, reruns: int) -> Iterator[str]:
    """No duplicates: a Job for each step and run number."""
    made: dict[tuple[str, int], set[str]] = {}
    for entry in cell.ledger.history(cell.namespace, "jobs"):
        name, labels = entry.seen["metadata"]["name"], entry.seen["metadata"].get("labels") or {}
        if entry.event == "ADDED" and name.startswith(f"{NAME}-"):
            made.setdefault((labels[STEP_LABEL], int(labels[RUN_LABEL])), set()).add(entry.seen["metadata"]["uid"])
    for (step, run), uids in made.items():
        if len(uids) > (2 if remakes else 1):
            yield f"{len(uids)} Jobs were made for run {run} of {step}"
        if run > reruns:
            yield f"{step} had {run} runs"


def _pods(cell: Cell) -> Iterator[str]:
    """No two pods of a step at once: two trainers would write the same checkpoints."""
    running: dict[str, set[str]] = {}
    for entry in cell.ledger.history(cell.namespace, "pods"):
        if not is_step(entry.seen):
            continue
        there = running.setdefault(cell.script.role(entry.seen), set())
        uid = entry.seen["metadata"]["uid"]
        if entry.event == "DELETED" or entry.seen["status"].get("phase") in {"Succeeded", "Failed"}:
            there.discard(uid)
        elif entry.seen["status"].get("phase") == "Running":
            there.add(uid)
        if len(there) > 1:
            yield f"{len(there)} pods of {cell.script.role(entry.seen)} ran at once"


def _promotions(cell: Cell) -> Iterator[str]:
    """No second version, and the head moves once each way, by steps that were told pods with the candidate."""
    if cell.script.head not in ([PARENT[1]], [PARENT[1], CHILD[1]], [PARENT[1], CHILD[1], PARENT[1]]):
        yield f"the head went {cell.script.head}"
    on_candidate: set[str] = set()
    for entry in cell.ledger.history(cell.namespace, "pods"):
        pod, role = entry.seen, cell.script.role(entry.seen)
        if role == "candidate" and _is_ready(pod):
            on_candidate.add(pod["metadata"]["name"])
        if role not in {Step.PROMOTE, REVERT} or entry.event != "ADDED":
            continue
        asked = promote_config(pod)
        if asked.digest != (CHILD[1] if role == Step.PROMOTE else PARENT[1]):
            yield f"{role} was asked for {asked.digest}"
        if role == Step.PROMOTE and not asked.pods:
            yield "a promote step was told no pods to prove"
        unproved = {pod.name for pod in asked.pods} - on_candidate
        if unproved:
            yield f"{role} was told pods that never were on the candidate: {sorted(unproved)}"


def _is_ready(pod: Raw) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _servings(cell: Cell, ending: Ending) -> Iterator[str]:
    """No unverified serving: the candidate only after its gates were passed, each version at most once each way."""
    has_passed, way = False, []
    for entry in cell.ledger.history(cell.namespace):
        has_passed = has_passed or (entry.kind, entry.event) == ("said", Step.TRAIN)
        if entry.kind != "deployments" or entry.event == "DELETED":
            continue
        weights = annotation(entry.seen)
        if weights == cell.script.candidate and not has_passed:
            yield "the candidate was served before it had passed its gates"
        if not way or way[-1] != weights:
            way.append(weights)
    parts = {cell.script.previous: "previous", cell.script.candidate: "candidate", "": ""}
    words = [parts.get(weights, "stranger") for weights in way]
    words = words[1:] if words[:1] == [""] else words
    if Counter(words).most_common(1)[0][1] > 2 or words.count("candidate") > 1:
        yield f"the annotation went {' → '.join(words)}"
    if "stranger" in words and ending.served != "stranger":
        yield f"the Deployment was told a version that nobody knows: {way}"


def _events(cell: Cell) -> Iterator[str]:
    """What is told is told once."""
    told_events = {
        (entry.seen["metadata"]["uid"], entry.seen["reason"], entry.seen["note"])
        for entry in cell.ledger.history(cell.namespace, "events")
        if entry.event == "ADDED" and entry.seen["regarding"]["name"] == NAME
    }
    words = Counter((reason, note) for _, reason, note in told_events)
    yield from (f"told {count} times: {reason}: {note}" for (reason, note), count in words.items() if count > 1)
    reasons = Counter(reason for _, reason, _ in told_events)
    yield from (f"{reason} was told {reasons[reason]} times" for reason in TOLD_ONCE if reasons[reason] > 1)
