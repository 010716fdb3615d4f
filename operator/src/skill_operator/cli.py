"""The command line: `run` the operator, `plan` what it would do, `release-finalizers` before an uninstall."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

import yaml

from skill_operator.agent_client import AgentClient
from skill_operator.api import FINALIZER
from skill_operator.kube import SKILL_UPDATES, Conflict, Kube, KubeError, connect
from skill_operator.main import operate
from skill_operator.manifests.pod import Images
from skill_operator.metrics import Metrics
from skill_operator.preview import FileError, Viewer, foresee, open_file, read_updates
from skill_operator.settings import SettingsError, own_version, read_settings
from skill_operator.trainer_client import TrainerClient

CONFIGURATION = 64
"""Exit code for a wrong configuration or file (sysexits, EX_USAGE)."""
UNAVAILABLE = 69
"""Exit code where the API server did not do what was asked (sysexits, EX_UNAVAILABLE)."""
NO_CLUSTER = (
    "KUBECONFIG, or plan --context, says which cluster is meant; kubectl auth can-i --list, what you may read there. "
    "Where you may not list SkillUpdates of all namespaces, name some in SKILL_NAMESPACES."
)
PLAN = """Prints what the operator would do for the SkillUpdates in a file, pass by pass up to the first that acts or
waits, and does nothing. Without --live each counts as new, with nothing before it in the queue."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except (SettingsError, FileError) as error:
        print(error, file=sys.stderr)
        return CONFIGURATION
    except KubeError as error:
        print(f"{error}\n{NO_CLUSTER}", file=sys.stderr)
        return UNAVAILABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skill-operator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the operator",
        description="Runs the operator. SKILL_… variables configure it (docs/operator.md).",
    )
    run.add_argument("--log-format", choices=["json", "text"], help="instead of SKILL_LOG_FORMAT")
    run.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="instead of SKILL_LOG_LEVEL")
    run.set_defaults(command=_run)
    _add_plan(commands.add_parser("plan", help="print what would be done for SkillUpdates now", description=PLAN))
    release = commands.add_parser("release-finalizers", help="let go of all SkillUpdates, before an uninstall")
    release.set_defaults(command=_release)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="YAML or JSON with SkillUpdates; - reads the standard input")
    parser.add_argument(
        "--live", action="store_true", help="look at the cluster, read only: what is there, and the queue"
    )
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig to look at; it implies --live")
    parser.add_argument(
        "--namespace", "-n", default="default", help="of SkillUpdates that name none (default: default)"
    )
    parser.add_argument(
        "--output", "-o", choices=["yaml", "json"], default="yaml", help="json: one list (default: yaml)"
    )
    parser.set_defaults(command=_plan)


def _run(given: argparse.Namespace) -> int:
    flags = {"SKILL_LOG_FORMAT": given.log_format, "SKILL_LOG_LEVEL": given.log_level}
    settings = read_settings({**os.environ, **{name: value for name, value in flags.items() if value}})
    asyncio.run(operate(settings))
    return 0


def _plan(given: argparse.Namespace) -> int:
    with open_file(given.file, sys.stdin) as file:
        updates = read_updates(file, given.file, given.namespace)
    if given.live or given.context:
        plans = asyncio.run(_look(updates, given.context))
    else:
        plans = [foresee(update, _images()) for update in updates]
    plain = json.loads(json.dumps(plans))  # enumerations become strings
    if given.output == "json":
        print(json.dumps(plain, indent=2))
    else:
        print(yaml.safe_dump_all(plain, sort_keys=False, width=120, allow_unicode=True), end="")
    return 0


async def _look(updates: list[dict[str, Any]], context: str | None) -> list[dict[str, Any]]:
    namespaces = tuple(name for name in os.environ.get("SKILL_NAMESPACES", "").split(",") if name)
    async with connect(Metrics(), context) as kube, TrainerClient() as trainers, AgentClient() as agents:
        viewer = Viewer(kube, trainers, agents, namespaces, _images())
        return [await viewer.foresee(update) for update in updates]


def _images() -> Images:
    """The operator's own images are its settings, not the cluster's: unknown here, unless the variables say them."""
    named = {step: os.environ.get(f"SKILL_{step.upper()}_IMAGE", f"<{step} image>") for step in ("trainer", "store")}
    return Images(trainer=named["trainer"], store=named["store"], version=own_version())


def _release(_: argparse.Namespace) -> int:
    print(f"{asyncio.run(_release_all())} SkillUpdates released")
    return 0


async def _release_all() -> int:
    namespaces: tuple[str | None, ...] = read_settings(os.environ).watched or (None,)
    async with connect(Metrics()) as kube:
        updates = [raw["metadata"] for place in namespaces for raw in await kube.list(SKILL_UPDATES, place)]
        return sum([await _let_go(kube, metadata) for metadata in updates])


async def _let_go(kube: Kube, seen: dict[str, Any]) -> bool:
    """Returns whether it held one. The operator still works: what it wrote in the same moment is read again."""
    held = False
    while FINALIZER in (seen.get("finalizers") or ()):
        held = True
        kept = [name for name in seen["finalizers"] if name != FINALIZER]
        patch = {"metadata": {"finalizers": kept, "resourceVersion": seen["resourceVersion"]}}
        try:
            await kube.patch(SKILL_UPDATES, seen["namespace"], seen["name"], patch)
            break
        except Conflict:
            raw = await kube.find(SKILL_UPDATES, seen["namespace"], seen["name"])
            seen = raw["metadata"] if raw else {}
    return held


if __name__ == "__main__":
    sys.exit(main())
