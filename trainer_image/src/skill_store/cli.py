"""`skill-store`: the model repository from the command line, by hand and as the entry point of the store image."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skill_contract.manifest import VersionRef
from skill_contract.model import ContractError
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import CONFIG_VARIABLE, PromoteConfig, Step
from skill_store import by_hand, layout
from skill_store.errors import UNKNOWN_FAULT, NotFound, StoreError, nothing_else
from skill_store.fetch import Cache, failure, fetch
from skill_store.repository import Repository
from skill_store.termination import write_termination_message

_KSERVE = "skill://"
"""The scheme of storageUri that the chart's ClusterStorageContainer takes: its own, as s3:// is KServe's."""
_CREDENTIALS = """
A repository is s3://bucket/prefix or file:///folder. Credentials, endpoint and region come from the environment, as the
AWS SDK reads them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3, AWS_REGION, a profile, or workload
identity.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 42 for a mistake that a retry cannot mend, 1 for anything else."""
    # As process 1 of a container, python would ignore SIGTERM. What has landed stays and is kept by the next attempt.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for talkative in ("botocore", "httpx"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except StoreError as error:
        print(f"skill-store: {error.reason}: {error.message}", file=sys.stderr)
        return _code(error)


def _code(error: StoreError) -> int:
    return UNKNOWN_FAULT if error.retriable else ExitCode.USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skill-store", description=__doc__, epilog=_CREDENTIALS)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], name: str, text: str, **more: Any) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=f"{text}.", epilog=_CREDENTIALS, **more)
        subparser.set_defaults(run=run)
        return subparser

    getting = command(_fetch, "fetch", "Bring a version into a folder, verified: the init container of serving pods")
    getting.add_argument(
        "--to", required=True, type=Path, metavar="DIR", help="folder that will hold exactly the version's files"
    )
    getting.add_argument(
        "--weights",
        default=os.environ.get("SKILL_WEIGHTS", ""),
        metavar="URI@DIGEST",
        help="<repository>/versions/<version>@sha256:<digest> (default: $SKILL_WEIGHTS, the pod's annotation)",
    )
    getting.add_argument(
        "--default",
        default=os.environ.get("SKILL_DEFAULT", ""),
        metavar="URI",
        help="what to fetch without --weights: a repository, for its head, or a version (default: $SKILL_DEFAULT)",
    )
    getting.add_argument(
        "--named",
        default=os.environ.get("SKILL_VERSION"),
        metavar="VERSION",
        help="the version's name as the pod has it in paths, which has to be that of --weights (default: $SKILL_VERSION"
        ", the pod's annotation, where it is set)",
    )
    getting.add_argument(
        "--cache",
        default=os.environ.get("SKILL_CACHE", ""),
        metavar="DIR",
        help="folder on the node, shared by its pods, that keeps files for the next (default: $SKILL_CACHE, or none)",
    )
    getting.add_argument(
        "--cache-gb",
        default=os.environ.get("SKILL_CACHE_GB", ""),
        metavar="GB",
        help="most that the cache holds; the least recently used files go first (default: $SKILL_CACHE_GB, or as much"
        " as leaves 15%% of the volume free)",
    )
    kserve = command(
        _initialize, "storage-initializer", "Fetch as KServe asks for it: the container of a ClusterStorageContainer"
    )
    kserve.add_argument("source", metavar=f"{_KSERVE}BUCKET/PREFIX", help="the repository s3://BUCKET/PREFIX")
    kserve.add_argument("to", metavar="DIR", help="folder that will hold exactly the version's files")
    command(
        _promote,
        "promote",
        f"Prove what pods serve and move the head: a step of the operator, reads ${CONFIG_VARIABLE}",
    )
    beside = command(
        _adapters, "adapters", "Load adapters into a live engine and pass questions on: the sidecar of serving pods"
    )
    beside.add_argument("--engine", required=True, choices=("vllm", "sglang"), help="which engine it is")
    beside.add_argument(
        "--engine-url", default="http://127.0.0.1:8000", metavar="URL", help="where it answers (default: %(default)s)"
    )
    beside.add_argument(
        "--port", type=int, default=8080, help="where the pod is to be asked instead (default: %(default)s)"
    )
    beside.add_argument(
        "--model", required=True, metavar="NAME", help="what people ask for: the engine's served model name"
    )
    beside.add_argument(
        "--told", type=Path, required=True, metavar="DIR", help="where the ConfigMap <target>-adapter is mounted"
    )
    beside.add_argument(
        "--base",
        type=Path,
        default=Path("/weights"),
        metavar="DIR",
        help="the engine's own weights (default: %(default)s)",
    )
    beside.add_argument(
        "--to", type=Path, default=Path("/adapters"), metavar="DIR", help="for adapters; the engine sees it there, too"
    )
    importing = command(
        _import, "import", "Make a Hugging Face folder the first version and the head of an empty repository"
    )
    importing.add_argument(
        "base", metavar="BASE", help="folder with safetensors, config and tokenizer: s3://, file:// or a path"
    )
    importing.add_argument("repository", metavar="REPOSITORY")
    command(_head, "head", "Print the current version, as a pod's annotation names it").add_argument(
        "repository", metavar="REPOSITORY"
    )
    verifying = command(
        _verify, "verify", "Read every byte of a version, or of all from the head to the base, and compare"
    )
    verifying.add_argument("place", metavar="REPOSITORY[/versions/VERSION]")
    by_hand.add_commands(command)
    return parser


def _cache(options: argparse.Namespace) -> Cache | None:
    """Raises StoreError where the limit is no size: a usage error would leave no message in the pod."""
    if not options.cache:
        return None
    try:
        limit = float(options.cache_gb) if options.cache_gb else None
    except ValueError:
        limit = 0.0
    if limit is not None and not limit > 0:
        raise StoreError(f"{options.cache_gb!r} is no size for a cache; write a number of gigabytes above 0, or none")
    return Cache(Path(options.cache), int(limit * 1e9) if limit else None)


def _fetch(options: argparse.Namespace) -> int:
    try:
        with nothing_else():
            message, code = fetch(options.to, options.weights, options.default, _cache(options), named=options.named), 0
    except StoreError as error:
        message, code = failure(error, options.weights, options.default), _code(error)
        print(f"skill-store: {message.reason}: {message.message}", file=sys.stderr)
    write_termination_message(message.dump_json().encode())
    return code


def _initialize(options: argparse.Namespace) -> int:
    repository = f"s3://{options.source.removeprefix(_KSERVE)}"
    again = _parser().parse_args(["fetch", "--to", options.to, "--default", repository])
    return _fetch(again)


def _promote(_options: argparse.Namespace) -> int:
    # Here and not above: it brings an HTTP client, and every serving pod waits for its fetch to start.
    from skill_store.promote import promote  # noqa: PLC0415

    text = os.environ.get(CONFIG_VARIABLE, "")
    try:
        config = PromoteConfig.parse_json(text)
    except ContractError as error:
        message = f"${CONFIG_VARIABLE} is no configuration of this step: {error}"
        outcome = Outcome(step=Step.PROMOTE, outcome=Result.FAILED, reason="ConfigInvalid", message=message)
        code: int = ExitCode.USER_ERROR
    else:
        outcome, code = promote(config)
    print(outcome.dump_json())
    write_termination_message(outcome.encode())
    return code


def _adapters(options: argparse.Namespace) -> int:
    # Here for the same reason.
    from skill_store.adapters.serve import Settings, serve  # noqa: PLC0415

    serve(
        Settings(
            engine=options.engine,
            engine_url=options.engine_url.rstrip("/"),
            port=options.port,
            model=options.model,
            told=options.told,
            base=options.base,
            folder=options.to,
        )
    )
    return 0


def _import(options: argparse.Namespace) -> int:
    repository = Repository(options.repository)
    repository.check_conditional_writes()
    ref = repository.import_base(options.base)
    print(layout.version_uri(repository.uri, ref))
    return 0


def _head(options: argparse.Namespace) -> int:
    repository = Repository(options.repository)
    head = repository.head()
    if head is None:
        raise NotFound(
            f"{repository.uri} has no head; import a base model with: skill-store import BASE {repository.uri}"
        )
    print(layout.version_uri(repository.uri, head.ref))
    return 0


def _verify(options: argparse.Namespace) -> int:
    place = layout.Location.parse(options.place)
    repository = Repository(place.repository)
    damaged = 0
    for ref in _chosen(repository, place):
        try:
            manifest = repository.verify(ref)
        except StoreError as error:
            damaged += 1
            print(f"{ref.version}  {error.reason}: {error.message}")
        else:
            size = sum(file.size for file in manifest.files)
            print(f"{ref.version}  ok, {len(manifest.files)} files, {size / 1e9:.2f} GB")
    return ExitCode.USER_ERROR if damaged else 0


def _chosen(repository: Repository, place: layout.Location) -> list[VersionRef]:
    if not place.version:
        return [ref for ref, _ in repository.lineage()]
    if place.digest:
        return [VersionRef(version=place.version, digest=place.digest)]
    return [repository.resolve(place.version)]


if __name__ == "__main__":
    sys.exit(main())
