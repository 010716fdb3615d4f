"""`kubectl skill suspend`: stop, with a checkpoint."""

from __future__ import annotations

import argparse

from kubectl_skill.changing import add_change_arguments, change, unchanged
from kubectl_skill.command import Command, Session
from kubectl_skill.errors import RefusedError
from kubectl_skill.picture import picture

EXAMPLES = """
kubectl skill suspend refund-tool     # its GPUs are given back, its checkpoints stay
"""


def run(options: argparse.Namespace, session: Session) -> int:
    body = session.cluster.update(options.name)
    seen = picture(body, session.now())
    if seen.final:
        raise RefusedError(f"{options.name} has ended: {seen.phase}; there is nothing to suspend")
    if body["spec"].get("suspend"):
        return unchanged(session, options.name, "it is suspended already")
    said = "suspended: it stops with a checkpoint, and resume goes on from there"
    if seen.rollout:
        said = "suspended in the spec: a rollout under way is finished first; to take it back, delete the update"
    return change(options, session, body, {"suspend": True}, said)


COMMAND = Command("suspend", "Stop an update, with a checkpoint", EXAMPLES, add_change_arguments, run)
