"""`kubectl skill approve`: the go-ahead of a person who has looked at the scores."""

from __future__ import annotations

import argparse

from kubectl_skill.changing import add_change_arguments, change, unchanged
from kubectl_skill.command import Command, Session
from kubectl_skill.errors import RefusedError
from kubectl_skill.picture import Picture, picture
from skill_operator.api import Phase

EXAMPLES = """
kubectl skill report refund-tool      # look first
kubectl skill approve refund-tool --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_change_arguments(parser)
    parser.add_argument("--unseen", action="store_true", help="also before there is anything to look at")


def run(options: argparse.Namespace, session: Session) -> int:
    body = session.cluster.update(options.name)
    seen, spec = picture(body, session.now()), body.get("spec") or {}
    if (spec.get("gates") or {}).get("approval") != "Manual":
        raise RefusedError(f"{options.name} asks nobody: its gates.approval is Automatic, so it goes on by itself")
    if spec.get("approved"):
        return unchanged(session, options.name, "it is approved already")
    if seen.final:
        raise RefusedError(f"{options.name} has ended: {seen.phase}; there is nothing left to approve")
    if seen.phase != Phase.AWAITING_APPROVAL and not options.unseen:
        raise RefusedError(
            f"{options.name} is {seen.phase} and has nothing to look at yet: wait for AwaitingApproval "
            f"(kubectl skill watch {options.name}), or approve it --unseen"
        )
    return change(options, session, body, {"approved": True}, _said(seen))


def _said(seen: Picture) -> str:
    new = seen.evaluation.new_skill if seen.evaluation else None
    scores = f" ({new.suite} {new.before:.2f} → {new.after:.2f})" if new else ""
    after = f"it is rolled out to {seen.target}" if seen.target else "it becomes the head of the repository"
    return f"approved {seen.version or 'whatever passes the gates'}{scores}; {after} now"


COMMAND = Command("approve", "Let an update go on that waits for approval", EXAMPLES, add_arguments, run)
