"""A TrainConfig from command-line options: training on a laptop, without a cluster and without S3."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from skill_contract import command_line
from skill_contract.model import ContractError
from skill_contract.step import TrainConfig


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options that `config_from` reads."""
    group.add_argument(
        "--model", metavar="DIR", help="Hugging Face directory to begin from (where --out has a head: that)"
    )
    group.add_argument("--data", metavar="FILE", help="training records, .jsonl, .jsonl.gz or .parquet")
    group.add_argument("--held-out", metavar="FILE", help="questions that are never trained on")
    group.add_argument(
        "--grader", choices=command_line.GRADERS, default="exact", help="of --held-out (default: %(default)s)"
    )
    group.add_argument("--out", metavar="DIR", help="folder of the model repository")
    group.add_argument("--skill", metavar="NAME", help="(default: name of the --data file)")
    group.add_argument(
        "--retention",
        metavar="NAME=FILE[:GRADER]",
        action="append",
        default=[],
        help="what must not be forgotten; repeatable",
    )
    group.add_argument(
        "--set", metavar="PATH=VALUE", action="append", default=[],
        help="any setting, such as method.steps=40 or method.optimizer.learningRate=1e-4; repeatable",
    )  # fmt: skip


def config_from(options: argparse.Namespace, *, needs_out: bool = True) -> TrainConfig:
    """Returns the configuration that the options describe; its uid is their hash, so that the same command resumes.

    Args:
        needs_out: whether there must be a repository; without one, the model's own folder stands for it.

    Raises:
        ContractError: for missing options and settings that do not exist.
    """
    needed = ("data", "held_out", *(["out"] if needs_out else []))
    missing = [f"--{name.replace('_', '-')}" for name in needed if not getattr(options, name)]
    if missing:
        raise ContractError(f"--model needs {', '.join(missing)} beside it")
    skill = options.skill or Path(options.data).name.partition(".")[0]
    document: dict[str, Any] = {
        "model": {"uri": str(Path(options.out or options.model).resolve()), "base": str(Path(options.model).resolve())},
        "skill": {"name": skill},
        "data": {
            "train": options.data,
            "heldOut": {"uri": options.held_out, "grader": options.grader},
            "retention": [_suite(text) for text in options.retention],
        },
        "training": {"gpusPerNode": 0},
    }
    for text in options.set:
        command_line.assign(document, text)
    uid = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
    return TrainConfig.parse({**document, "update": {"namespace": "local", "name": skill, "uid": f"{skill}-{uid}"}})


def _suite(text: str) -> dict[str, str]:
    name, uri, grader = command_line.suite(text)
    return {"name": name, "uri": uri} | ({"grader": grader} if grader else {})
