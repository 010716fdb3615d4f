"""`kubectl skill explain`: why it does not go on, and what to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kubectl_skill.command import Command, Session, add_name
from kubectl_skill.drawing import COLOURS, badge
from kubectl_skill.errors import ExitCode, RefusedError
from kubectl_skill.explaining import Explanation, explain
from kubectl_skill.picture import Body, Picture, Tone, picture

EXAMPLES = """
kubectl skill explain refund-tool
kubectl skill explain refund-tool -o json | jq -r .do
"""
MOST_PODS = 5
"""Of which events are asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def run(options: argparse.Namespace, session: Session) -> int:
    body = session.cluster.update(options.name)
    now = session.now()
    seen = picture(body, now)
    pods = _allowed(session, "pods", lambda: session.cluster.pods(seen.namespace, seen.uid))
    uids = [seen.uid, *(pod["metadata"]["uid"] for pod in pods[-MOST_PODS:])]
    events = _allowed(session, "events", lambda: session.cluster.events(seen.namespace, uids))
    found = explain(seen, pods, events, now)
    if options.output == "json":
        session.document(found.dump())
    else:
        session.out.print(drawn(seen, found))
    return ExitCode.NOT_WELL if found.tone is Tone.BAD else ExitCode.DONE


def _allowed(session: Session, what: str, read: Callable[[], list[Body]]) -> list[Body]:
    """Returns what can be read; without the right to, the rest is explained all the same."""
    try:
        return read()
    except RefusedError as error:
        session.note(f"note: without {what}: {error}")
        return []


def drawn(seen: Picture, found: Explanation) -> RenderableType:
    """Returns what is shown of an explanation."""
    reason = f"{found.reason}: " if found.reason else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row("it says", Text.assemble((reason, COLOURS[found.tone]), found.message))
    grid.add_row("it means", Text(found.means))
    grid.add_row("to do", Text(found.do, style="bold"))
    for command in found.commands:
        grid.add_row("", Text(command, style="cyan"))
    for each in found.evidence:
        grid.add_row("besides", Text.assemble((f"{each.source}: ", "dim"), each.words))
    return Group(Text.assemble((seen.title, "bold"), "   ", badge(seen)), Padding(grid, (0, 2)))


COMMAND = Command("explain", "Say why an update does not go on, and what to do", EXAMPLES, add_arguments, run)
