"""What the operator would do for a SkillUpdate now, as plain data, without doing it: `skill-operator plan`.

Without a cluster the update counts as new, its turn as come. With one, everything that a pass looks at is read, and
nothing is written: the same Lookout reads as for the operator, and the same plan decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import yaml

from skill_operator.actions import Action, ApplyWeights, CreateJob, DeleteJob, DeletePod, PatchJob
from skill_operator.agent_client import AgentClient
from skill_operator.api import API_VERSION, KIND, SkillUpdate, parse, to_rfc3339
from skill_operator.engines import Engines
from skill_operator.kube import SKILL_UPDATES, Kube
from skill_operator.manifests.pod import Images
from skill_operator.neighbours import Neighbours
from skill_operator.observed import Observed
from skill_operator.plan import Plan, plan
from skill_operator.sight import Key, Lookout, with_progress, with_reports
from skill_operator.trainer_client import TrainerClient

Body = dict[str, Any]
UNBORN = "00000000-0000-0000-0000-000000000000"
"""The uid of an update that is not in the cluster."""
_MOST_PASSES = 10


class FileError(ValueError):
    """The file has no SkillUpdate that could be planned; the message has the place and the way out."""


def read_updates(file: IO[str], name: str, namespace: str) -> list[Body]:
    """Returns the SkillUpdates in a YAML or JSON file, those in a List of kubectl's among them, as new ones.

    Args:
        namespace: of those that name none.

    Raises:
        FileError: it cannot be read, has none, or one that is not complete.
    """
    try:
        documents = list(yaml.safe_load_all(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"{name} is no YAML: {' '.join(str(error).split())}: correct it there") from error
    found = [body for document in documents for body in _objects(document) if body.get("kind") == KIND]
    if not found:
        kinds = ", ".join(str(body.get("kind")) for document in documents for body in _objects(document)) or "nothing"
        raise FileError(f"{name} holds no {KIND} but {kinds}: give a file with apiVersion: {API_VERSION}, kind: {KIND}")
    return [_new(body, name, namespace) for body in found]


def _objects(document: Any) -> Iterator[Body]:
    if isinstance(document, dict):
        items = document.get("items")
        yield from (each for each in (items if isinstance(items, list) else [document]) if isinstance(each, dict))


def _new(body: Body, file: str, namespace: str) -> Body:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise FileError(f"{file} holds a {KIND} without metadata.name: give it one")
    if not isinstance(body.get("spec"), dict):
        raise FileError(f"{file}: {KIND} {metadata['name']} has no spec: docs/api.md has every field")
    kept = {key: metadata[key] for key in ("name", "labels", "annotations") if metadata.get(key)}
    born = {
        "namespace": metadata.get("namespace") or namespace,
        "uid": UNBORN,
        "creationTimestamp": to_rfc3339(time.time()),
    }
    new = {**body, "metadata": {**kept, **born, "generation": 1, "resourceVersion": "0"}, "status": {}}
    problem = parse(new).problem
    if problem:
        raise FileError(f"{file}: {KIND} {kept['name']}: {problem}\ncorrect spec there; docs/api.md has every field")
    return new


def foresee(body: Body, images: Images) -> Body:
    """Returns what would be done for a new SkillUpdate whose turn has come, without a cluster."""
    update = parse(body)
    return {
        **_named(update),
        "as": "new, no other update of its model before it, in a cluster that has JobSet",
        "passes": _passes(update, Observed(serves_jobset=True), images),
    }


class Viewer:
    """Looks at a cluster for plans."""

    def __init__(
        self, api: Kube, trainers: TrainerClient, agents: AgentClient, namespaces: tuple[str, ...], images: Images
    ) -> None:
        self._api, self._trainers, self._agents = api, trainers, agents
        self._namespaces, self._images = namespaces, images

    async def foresee(self, body: Body) -> Body:
        """Returns what would be done for a SkillUpdate now, with this spec, in this cluster.

        Raises:
            KubeError: something could not be read.
        """
        new = parse(body)
        stored = await self._api.find(SKILL_UPDATES, new.namespace, new.name)
        update = parse({**stored, "spec": body["spec"]}) if stored else new
        key = Key(update.namespace, update.name, update.uid)
        lookout = Lookout(self._api, Neighbours(), Engines(), self._namespaces, key)
        seen = await with_progress((await lookout.see(update)).seen, self._trainers)
        seen = await with_reports(seen, update, self._agents)
        planned = await asyncio.to_thread(_passes, update, seen, self._images)
        return {**_named(update), "as": _standing(update, stored, new), "passes": planned}


def _standing(update: SkillUpdate, stored: Mapping[str, Any] | None, new: SkillUpdate) -> str:
    if stored is None:
        return "not in the cluster: as if it were created now"
    phase = update.status.get("phase") or "Pending"
    if parse(stored).spec == new.spec:
        return f"in the cluster, {phase}"
    return f"in the cluster, {phase}; with the file's spec, which is not what is stored"


def _named(update: SkillUpdate) -> Body:
    return {"update": f"{update.namespace}/{update.name}"}


def _passes(update: SkillUpdate, seen: Observed, images: Images) -> list[Body]:
    """Returns pass by pass what comes by itself: up to the first that acts or waits."""
    passes: list[Body] = []
    while True:
        planned = plan(update, seen, images, time.time())
        passes.append(_pass(planned))
        if planned.actions or planned.requeue_after != 0 or len(passes) == _MOST_PASSES:
            return passes
        update = replace(update, status=planned.status)


def _pass(planned: Plan) -> Body:
    ready = next(c for c in planned.status["conditions"] if c["type"] == "Ready")
    told = [f"{news.reason}: {news.message}" for news in (*planned.news, *planned.alerts)]
    shown = {
        "phase": str(planned.status["phase"]),
        "reason": str(ready["reason"]),
        "message": ready["message"],
        "actions": [_in_words(action) for action in planned.actions],
        "events": told,
        "lookAgainSeconds": planned.requeue_after,
    }
    return {name: value for name, value in shown.items() if value not in ([], None)}


def _in_words(action: Action) -> Any:
    match action:
        case CreateJob():
            return {"create": dict(action.manifest)}
        case PatchJob():
            return {"patch": f"{action.kind} {action.name}", "with": dict(action.patch)}
        case DeleteJob():
            return {"delete": f"{action.kind} {action.name}"}
        case DeletePod():
            return {"delete": f"Pod {action.name}"}
        case ApplyWeights():
            held = {"hold": True} if action.hold else {}
            beside = {"beside": action.beside} if action.beside else {}
            return {"annotate": action.place.title, "weights": action.weights, **held, **beside}
    return type(action).__name__


def open_file(name: str, standard_input: IO[str]) -> IO[str]:
    """Returns a file to read from; `-` is the standard input.

    Raises:
        FileError: there is none.
    """
    if name == "-":
        return standard_input
    try:
        return Path(name).open(encoding="utf-8")
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}: name a file, or - for the standard input") from error
