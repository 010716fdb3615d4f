"""`kubectl skill revert`: a finished update is taken back, head first, then the pods."""

from __future__ import annotations

import argparse

from kubectl_skill.changing import add_change_arguments, change, unchanged
from kubectl_skill.command import Command, Session
from kubectl_skill.errors import RefusedError
from kubectl_skill.picture import Body, Picture, picture
from skill_operator.api import Phase, Reason

EXAMPLES = """
kubectl skill revert refund-tool --watch       # back to the version that was served before
kubectl skill revert refund-tool --cancel      # not wanted any more, or to ask again after a refusal
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_change_arguments(parser)
    parser.add_argument("--cancel", action="store_true", help="take the wish back, as long as nothing has moved")


def run(options: argparse.Namespace, session: Session) -> int:
    body = session.cluster.update(options.name)
    if options.cancel:
        return _cancel(options, session, body)
    seen = picture(body, session.now())
    if seen.phase == Phase.REVERTED:
        return unchanged(session, options.name, "it is reverted already")
    if body["spec"].get("revert"):
        if seen.reason == Reason.REVERT_REFUSED:
            raise RefusedError(
                f"{seen.message}; to ask again: kubectl skill revert {options.name} --cancel, then revert"
            )
        return unchanged(session, options.name, "it is on its way back already")
    _require_sense(options.name, seen)
    before = f"from {seen.version} to {seen.parent}" if seen.parent else "to the version before"
    said = f"goes back {before}: the head first, then the pods of {seen.target}"
    return change(options, session, body, {"revert": True}, said)


def _require_sense(name: str, seen: Picture) -> None:
    """Raises RefusedError where there is nothing to go back from."""
    if not seen.final:
        raise RefusedError(
            f"{name} is {seen.phase}: only a finished update is reverted; to stop this one, suspend or delete it (a "
            "rollout in its middle is taken back then)"
        )
    if seen.phase != Phase.SUCCEEDED:
        raise RefusedError(
            f"{name} is {seen.phase}: what serves is what served before it, so there is nothing to revert"
        )
    if seen.rollout is None:
        raise RefusedError(f"{name} rolled nothing out, so there is no version before it to go back to")


def _cancel(options: argparse.Namespace, session: Session, body: Body) -> int:
    if not body["spec"].get("revert"):
        return unchanged(session, options.name, "nobody wants it reverted")
    return change(
        options, session, body, {"revert": False}, "not to be reverted; once the head has moved it is, all the same"
    )


COMMAND = Command("revert", "Go back to the version that served before a finished update", EXAMPLES, add_arguments, run)
