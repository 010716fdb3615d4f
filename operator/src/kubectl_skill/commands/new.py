"""`kubectl skill new`: writes a SkillUpdate from data files, checked as far as this machine can."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import yaml

from kubectl_skill.command import Command, Session
from kubectl_skill.errors import ExitCode, RefusedError, UsageError
from kubectl_skill.manifest import DataFile, Wish, check_data, manifest, upload
from skill_contract.command_line import GRADERS, suite
from skill_contract.model import ContractError

EXAMPLES = """
kubectl skill new refund-tool --model s3://models/support-llm --data s3://skills/refund/train.jsonl \\
    --held-out s3://skills/refund/test.jsonl --grader tool_call --secret s3-creds --target support-llm \\
    | kubectl apply -f -
kubectl skill new refund-tool --model s3://models/support-llm --data train.jsonl --held-out test.jsonl \\
    --at s3://skills/refund --upload --secret s3-creds --target support-llm --file refund-tool.yaml --server-check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SkillUpdate and, without --skill, of the skill")
    parser.add_argument("--model", required=True, metavar="URI", help="the model repository, s3://bucket/prefix")
    data = parser.add_argument_group("data: files of this machine, or URIs")
    data.add_argument("--data", required=True, metavar="FILE", help="demonstrations to learn from")
    data.add_argument("--held-out", required=True, metavar="FILE", help="questions that are never trained on")
    data.add_argument("--grader", choices=GRADERS, default="exact", help="of --held-out (default: %(default)s)")
    data.add_argument(
        "--retention",
        action="append",
        default=[],
        metavar="NAME=FILE[:GRADER]",
        help="what must not be lost; repeatable",
    )
    data.add_argument(
        "--at", default="", metavar="URI", help="folder in the store in which files of this machine will lie"
    )
    data.add_argument("--upload", action="store_true", help="bring them there, with your own access to the store")
    store = parser.add_argument_group("store and serving")
    store.add_argument("--secret", default="", metavar="NAME", help="Secret with the store's keys (default: none)")
    store.add_argument("--endpoint", default="", metavar="URL", help="of the store (default: that of AWS)")
    store.add_argument("--base", default="", metavar="URI", help="model to begin with, where the repository is empty")
    store.add_argument("--target", default="", metavar="[KIND/]NAME", help="what serves (default: publish only)")
    more = parser.add_argument_group("more")
    more.add_argument("--skill", default="", metavar="NAME", help="(default: NAME)")
    more.add_argument("--description", default="", metavar="TEXT", help="of the skill, a sentence for people")
    more.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="any field below spec, method.steps=24; repeatable",
    )
    more.add_argument("-f", "--file", type=Path, metavar="FILE", help="write it there (default: standard output)")
    more.add_argument("--server-check", action="store_true", help="ask the cluster, too, whether it would take it")


def run(options: argparse.Namespace, session: Session) -> int:
    wish = _wish(options)
    body = manifest(wish, options.namespace)
    local = [file for file in wish.files if file.is_local]
    missing = [file.given for file in local if not Path(file.given).is_file()]
    if missing:
        raise UsageError(f"there is no file {', '.join(missing)}: give a path, or a URI with its scheme")
    _check(wish, local, session)
    if options.server_check:
        session.cluster.rehearse(body)
        session.note(f"the cluster would take it in namespace {session.cluster.namespace}")
    if local and options.upload:
        if wish.endpoint:
            os.environ.setdefault("AWS_ENDPOINT_URL_S3", wish.endpoint)
        session.note("\n".join(f"uploaded {uri}" for uri in upload(local)))
    elif local:
        endpoint = f" --endpoint-url {wish.endpoint}" if wish.endpoint else ""
        session.note("\n".join(["before you apply it:", *(f"  aws s3 cp {f.given} {f.uri}{endpoint}" for f in local)]))
    _write(yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120), options.file)
    return ExitCode.DONE


class _Dumper(yaml.SafeDumper):
    """Quotes whatever looks like a number: PyYAML reads `8e-5` as text (YAML 1.1), kubectl as a number (YAML 1.2)."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if _NUMBER.match(value) else None)


_NUMBER = re.compile(r"[-+.]?\d")
_Dumper.add_representer(str, _text)


def _wish(options: argparse.Namespace) -> Wish:
    return Wish(
        name=options.name,
        model=options.model,
        train=DataFile(options.data, options.at),
        held_out=DataFile(options.held_out, options.at, options.grader),
        retention=dict(_retention(text, options.at) for text in options.retention),
        skill=options.skill,
        description=options.description,
        base=options.base,
        secret=options.secret,
        endpoint=options.endpoint,
        target=options.target,
        settings=tuple(options.set),
    )


def _retention(text: str, folder: str) -> tuple[str, DataFile]:
    try:
        name, file, grader = suite(text)
    except ContractError as error:
        raise UsageError(str(error)) from error
    return name, DataFile(file, folder, grader or "exact")


def _check(wish: Wish, local: list[DataFile], session: Session) -> None:
    if not local:
        session.note("note: data in a store are checked by the update's first step, in seconds")
        return
    notes = check_data(wish)
    if notes is None:
        session.note("note: data are not checked here without skillupdate[trainer]; the update's first step does it")
        return
    session.note("\n".join(notes))


def _write(text: str, file: Path | None) -> None:
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(f"cannot write {file}: {error.strerror}: choose another --file") from error


COMMAND = Command("new", "Write a SkillUpdate from data files, checked", EXAMPLES, add_arguments, run)
