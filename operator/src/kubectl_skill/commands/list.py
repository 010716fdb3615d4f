"""`kubectl skill list`: the updates of a namespace or of all, one line each."""

from __future__ import annotations

import argparse

from kubectl_skill.command import Command, Session
from kubectl_skill.drawing import overview
from kubectl_skill.errors import ExitCode
from kubectl_skill.picture import picture

EXAMPLES = """
kubectl skill list
kubectl skill list -A
kubectl skill list -o json | jq -r '.[] | select(.tone == "Bad") | .name'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="json: one list of documents as `status` has"
    )


def run(options: argparse.Namespace, session: Session) -> int:
    now = session.now()
    pictures = [picture(body, now) for body in session.cluster.updates()]
    if options.output == "json":
        session.document([each.dump() for each in pictures])
        return ExitCode.DONE
    if not pictures:
        where = "any namespace" if session.cluster.everywhere else f"namespace {session.cluster.namespace}"
        session.note(f"there are no SkillUpdates in {where}; to begin one: kubectl skill new --help")
        return ExitCode.DONE
    session.out.print(overview(pictures, now, namespaces=session.cluster.everywhere))
    return ExitCode.DONE


COMMAND = Command("list", "List SkillUpdates, one line each", EXAMPLES, add_arguments, run)
