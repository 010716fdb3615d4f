"""`kubectl skill resume`: go on where it was suspended."""

from __future__ import annotations

import argparse

from kubectl_skill.changing import add_change_arguments, change, unchanged
from kubectl_skill.command import Command, Session

EXAMPLES = """
kubectl skill resume refund-tool --watch
"""


def run(options: argparse.Namespace, session: Session) -> int:
    body = session.cluster.update(options.name)
    if not body["spec"].get("suspend"):
        return unchanged(session, options.name, "it is not suspended")
    return change(options, session, body, {"suspend": False}, "resumed: it goes on from its last checkpoint")


COMMAND = Command("resume", "Let a suspended update go on", EXAMPLES, add_change_arguments, run)
