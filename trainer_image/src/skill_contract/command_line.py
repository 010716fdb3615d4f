"""Parts of a spec as people write them on a command line, `PATH=VALUE` and `NAME=FILE:GRADER`; what it lacks to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

from skill_contract.model import ContractError
from skill_contract.spec import GraderName

GRADERS: tuple[str, ...] = get_args(GraderName)


def json_or_text(text: str) -> Any:
    """Returns the value as JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def assign(document: dict[str, Any], text: str, read: Callable[[str], Any] = json_or_text) -> None:
    """Puts `PATH=VALUE` into a document, the value as `read` takes it; raises ContractError for anything else."""
    path, found, value = text.partition("=")
    if not found or not path:
        raise ContractError(f"{text}: write PATH=VALUE, such as method.steps=40")
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place.setdefault(folder, {})
        if not isinstance(place, dict):
            raise ContractError(f"{text}: {folder} has no settings below it")
    place[last] = read(value)


def suite(text: str) -> tuple[str, str, str]:
    """Returns name, file and grader (empty where there is none) of `NAME=FILE[:GRADER]`.

    Raises:
        ContractError: it is written in another way.
    """
    name, found, rest = text.partition("=")
    if not found or not name or not rest:
        raise ContractError(f"--retention {text}: write NAME=FILE or NAME=FILE:GRADER")
    file, _, grader = rest.rpartition(":")
    return (name, file, grader) if file and grader in GRADERS else (name, rest, "")


def lacks(program: str, extra: str, missing: ModuleNotFoundError) -> str:
    """Returns the sentence for a program whose extra of the wheel is not installed."""
    package = (missing.name or "").partition(".")[0]
    return f"{program} needs the package {package}: pip install 'skillupdate[{extra}]'"
