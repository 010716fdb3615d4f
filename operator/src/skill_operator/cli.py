"""The command line: `run` the operator, `plan` a file without a cluster, `release-finalizers` before an uninstall."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from skill_operator.actions import Action, ApplyWeights, CreateJob, DeleteJob, DeletePod, PatchJob
from skill_operator.api import FINALIZER, parse
from skill_operator.kube import SKILL_UPDATES, Kube, connect
from skill_operator.main import operate
from skill_operator.manifests.pod import Images
from skill_operator.metrics import Metrics
from skill_operator.observed import Observed
from skill_operator.plan import Plan, plan
from skill_operator.settings import Settings, SettingsError, read_settings

CONFIGURATION = 64
"""Exit code for a wrong configuration (sysexits, EX_USAGE)."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skill-operator", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run the operator (configured by SKILL_… variables)")
    run.set_defaults(command=_run)
    show = commands.add_parser("plan", help="print what would be done for the SkillUpdates in a file, were they new")
    show.add_argument("file", type=Path)
    show.set_defaults(command=_plan)
    release = commands.add_parser("release-finalizers", help="let go of all SkillUpdates, before an uninstall")
    release.set_defaults(command=_release)
    return parser


def _run(_: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    print(json.dumps({"message": "settings", **_public(settings)}), file=sys.stderr)
    asyncio.run(operate(settings))
    return 0


def _public(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def _plan(given: argparse.Namespace) -> int:
    for document in yaml.safe_load_all(given.file.read_text()):
        if document and document.get("kind") == "SkillUpdate":
            plain = json.loads(json.dumps(describe(document)))  # enumerations become strings
            print(yaml.safe_dump(plain, sort_keys=False, width=120))
    return 0


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Returns, as plain data, what the operator would do for a SkillUpdate whose turn has come, pass by pass."""
    body = _as_stored(document)
    images = Images(trainer="<trainer image>", store="<store image>")
    passes: list[dict[str, Any]] = []
    planned = None
    while planned is None or (not planned.actions and planned.requeue_after == 0 and len(passes) < 10):
        planned = plan(parse(body), Observed(), images, time.time())
        passes.append(_pass(planned))
        body["status"] = dict(planned.status)
    return {"update": document["metadata"]["name"], "passes": passes}


def _as_stored(document: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "default", "uid": "00000000-0000-0000-0000-000000000000", **document["metadata"]}
    return {**document, "metadata": metadata, "status": {}}


def _pass(planned: Plan) -> dict[str, Any]:
    ready = next(c for c in planned.status["conditions"] if c["type"] == "Ready")
    return {
        "phase": planned.status["phase"],
        "message": ready["message"],
        "actions": [_in_words(action) for action in planned.actions],
    }


def _in_words(action: Action) -> Any:
    match action:
        case CreateJob():
            return {"create": dict(action.manifest)}
        case PatchJob():
            return {"patch": action.name, "with": dict(action.patch)}
        case DeleteJob() | DeletePod():
            return {"delete": action.name}
        case ApplyWeights():
            return {"annotate": action.deployment, "weights": action.weights}
    return type(action).__name__


def _release(_: argparse.Namespace) -> int:
    print(f"{asyncio.run(_release_all())} SkillUpdates released")
    return 0


async def _release_all() -> int:
    namespaces: tuple[str | None, ...] = read_settings(os.environ).watched or (None,)
    async with connect(Metrics()) as kube:
        updates = [raw["metadata"] for place in namespaces for raw in await kube.list(SKILL_UPDATES, place)]
        held = [metadata for metadata in updates if FINALIZER in (metadata.get("finalizers") or ())]
        for metadata in held:
            await _let_go(kube, metadata)
        return len(held)


async def _let_go(kube: Kube, metadata: dict[str, Any]) -> None:
    kept = [name for name in metadata["finalizers"] if name != FINALIZER]
    patch = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
    await kube.patch(SKILL_UPDATES, metadata["namespace"], metadata["name"], patch)


if __name__ == "__main__":
    sys.exit(main())
