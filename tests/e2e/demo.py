"""`make demo`: from nothing to a served, verified skill, as a user would get there.

Leaves the cluster up and says how to go on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tests import cluster as test_cluster
from tests.e2e import story
from tests.e2e.world import DEMO, ROOT, World, condition

QUESTIONS = 4
"""Held-out questions that are asked before and after, besides one that the model could always answer."""
OUTPUT = ROOT / "demo-output"
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    arguments = _arguments()
    started = time.monotonic()
    chapter("A Kubernetes cluster of its own")
    cluster = test_cluster.connect(kubeconfig=arguments.kubeconfig, registry=arguments.registry)
    world = World(cluster, "demo")

    chapter("An object store, the operator from its Helm chart, SmolLM2-135M served by `transformers serve`")
    world.create_namespace()
    world.install_operator()
    world.start_storage()
    before_head = story.serve_base_model(world)
    story.upload_skill(world, "velmora")
    console.print(f"repository {story.MODEL}, head {before_head.version}")

    chapter("What the served model says before")
    questions = [*story.held_out("velmora")[:QUESTIONS], story.Question("What is the capital of France?", "Paris")]
    before = [world.ask(question.prompt) for question in questions]
    show(questions, before)

    chapter(f"kubectl apply -f {(DEMO / 'skillupdate.yaml').relative_to(ROOT)}")
    update = teach(world)
    if condition(update, "Ready").get("status") != "True":
        console.print(f"[bold red]{update['status']['phase']}[/]: {condition(update, 'Ready').get('message')}")
        return 1

    chapter("What the served model says after")
    show(questions, [world.ask(question.prompt) for question in questions])
    scores(update["status"]["evaluation"])
    report = save_report(world, update)

    console.rule(f"done in {time.monotonic() - started:.0f} s")
    console.print(world.kubectl("get", "skillupdates"))
    console.print(farewell(arguments, report))
    return 0


def farewell(arguments: argparse.Namespace, report: Path) -> str:
    """Says how to go on, and how to get rid of it."""
    own = "eval $(.venv/bin/python -m tests.cluster env)"  # KUBECONFIG, and a PATH with kubectl, its plugin and helm
    begin = f"export KUBECONFIG={arguments.kubeconfig}" if arguments.kubeconfig else own
    away = "helm uninstall skillupdate --namespace skillupdate-system; kubectl delete namespace demo"
    return (
        f"report    {report}\n"
        f"shell     {begin}\n"
        "look      kubectl skill status velmora --namespace demo\n"
        "back      kubectl skill revert velmora --namespace demo --watch\n"
        "metrics   kubectl port-forward deployment/skillupdate 9090 --namespace skillupdate-system\n"
        f"remove    {away if arguments.kubeconfig else 'make down'}"
    )


def teach(world: World) -> dict[str, Any]:
    """Applies the README's SkillUpdate and shows each change of its state until it has ended."""
    world.apply(story.demo_update())
    last_line = ""
    update: dict[str, Any] = {}
    for update in story.follow(world, "velmora", timeout_s=2400):
        status = update.get("status", {})
        training = status.get("training", {})
        eta = f", {training['etaSeconds']} s left" if training.get("etaSeconds") else ""
        line = f"{status.get('phase', 'Pending'):<12} {status.get('progress', ''):>5}{eta}  " + condition(
            update, "Ready"
        ).get("message", "")
        if line != last_line:
            console.print(f"{time.strftime('%H:%M:%S')}  {line}")
        last_line = line
    return update


def scores(evaluation: dict[str, Any]) -> None:
    chapter("Scores (share of right answers, 95 % interval of the change)")
    rows = [("new skill", evaluation["newSkill"]), *((f"kept: {row['suite']}", row) for row in evaluation["retention"])]
    for name, row in rows:
        console.print(
            f"{name:<24} {float(row['before']):.2f} -> {float(row['after']):.2f}   change {float(row['gain']):+.2f} "
            f"[{float(row['low']):+.2f}, {float(row['high']):+.2f}]   n={row['n']}   {row['verdict']}",
            markup=False,
        )


def save_report(world: World, update: dict[str, Any]) -> Path:
    """Copies the published version's report out of the bucket."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / "report.html"
    with world.storage():
        content = world.repository(story.MODEL).run(update["metadata"]["uid"]).get("report.html")
    if content is None:
        raise FileNotFoundError("the run has no report.html")
    path.write_bytes(content)
    return path


def chapter(title: str) -> None:
    console.print(f"\n[bold]{title}[/]")


def show(questions: list[story.Question], answers: list[str]) -> None:
    for question, answer in zip(questions, answers, strict=True):
        mark = "[green]right[/]" if question.answer.lower() in answer.lower() else "[red]wrong[/]"
        console.print(f"  {mark}  {escape(question.prompt)}\n         {escape(' '.join(answer.split()))}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", help="use this cluster instead of building one", default="")
    parser.add_argument("--registry", help="with --kubeconfig: a registry that the cluster can pull from", default="")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
