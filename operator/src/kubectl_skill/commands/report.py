"""`kubectl skill report`: fetches the report of an update's run and opens it."""

from __future__ import annotations

import argparse
import tempfile
import webbrowser
from pathlib import Path

from kubectl_skill.command import Command, Session, add_name
from kubectl_skill.errors import ExitCode, RefusedError
from kubectl_skill.reports import PAGE, fetch, place

EXAMPLES = """
kubectl skill report refund-tool                       # with your own access to the store (AWS_PROFILE, …)
kubectl skill report refund-tool --out refund-tool.html
kubectl skill report refund-tool --uri                 # only say where it lies
kubectl skill report refund-tool --endpoint http://127.0.0.1:8333    # behind kubectl port-forward
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="FILE", help="write it there, and open nothing")
    where.add_argument("--uri", action="store_true", help="print where it lies, and fetch nothing")
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="of the store from here (default: $AWS_ENDPOINT_URL_S3, spec.storage.endpoint)",
    )


def run(options: argparse.Namespace, session: Session) -> int:
    where = place(session.cluster.update(options.name), options.endpoint)
    if options.uri:
        session.out.print(where.uri, markup=False, soft_wrap=True)
        return ExitCode.DONE
    page = fetch(where)
    path = options.out or Path(tempfile.mkdtemp(prefix="kubectl-skill-")) / f"{options.name}-{PAGE}"
    try:
        path.write_bytes(page)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror}: choose another --out") from error
    session.out.print(str(path), markup=False, soft_wrap=True)
    if options.out is None and not webbrowser.open(path.resolve().as_uri()):
        session.note("note: there is no browser to open here; the file is yours to carry where there is one")
    return ExitCode.DONE


COMMAND = Command("report", "Open the report of an update's run", EXAMPLES, add_arguments, run)
