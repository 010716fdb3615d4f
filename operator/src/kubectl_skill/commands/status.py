"""`kubectl skill status`: where one update stands, as a picture or as a document."""

from __future__ import annotations

import argparse

from kubectl_skill.command import Command, Session, add_name
from kubectl_skill.drawing import draw
from kubectl_skill.errors import ExitCode
from kubectl_skill.following import follow
from kubectl_skill.picture import Tone, picture

EXAMPLES = """
kubectl skill status refund-tool
kubectl skill status refund-tool --watch
kubectl skill status refund-tool -o json | jq .stages
kubectl skill status refund-tool --exit-code >/dev/null || echo needs a look
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")
    parser.add_argument("-w", "--watch", action="store_true", help="keep the view up to date until the update ends")
    parser.add_argument(
        "--exit-code", action="store_true", help="end with 1 where it failed, was rejected or needs a person"
    )


def run(options: argparse.Namespace, session: Session) -> int:
    if options.watch:
        return follow(session, options.name, as_json=options.output == "json")
    now = session.now()
    seen = picture(session.cluster.update(options.name), now)
    if options.output == "json":
        session.document(seen.dump())
    else:
        session.out.print(draw(seen, now))
    return ExitCode.NOT_WELL if options.exit_code and seen.tone is Tone.BAD else ExitCode.DONE


COMMAND = Command("status", "Show where an update stands: stages, scores, rollout", EXAMPLES, add_arguments, run)
