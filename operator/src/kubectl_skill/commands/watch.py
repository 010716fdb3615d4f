"""`kubectl skill watch`: follow one update to its end, or all of them until somebody stops it."""

from __future__ import annotations

import argparse

from kubectl_skill.command import Command, Session, add_name
from kubectl_skill.following import follow, follow_all

EXAMPLES = """
kubectl skill watch refund-tool                # to its end; a line for each change where there is no terminal
kubectl skill watch refund-tool && echo it serves
kubectl skill watch -A                         # all, until Ctrl-C
kubectl skill watch refund-tool -o json        # a document a line for each change
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser, needed=False)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def run(options: argparse.Namespace, session: Session) -> int:
    as_json = options.output == "json"
    if options.name:
        return follow(session, options.name, as_json=as_json)
    return follow_all(session, as_json=as_json)


COMMAND = Command("watch", "Follow an update until it ends, or all of them", EXAMPLES, add_arguments, run)
