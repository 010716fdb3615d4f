"""What a command is, and what it is given: each module in `commands` defines one, and nothing else lists them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kubectl_skill.picture import clean
from kubectl_skill.screen import console

if TYPE_CHECKING:
    from kubectl_skill.cluster import Cluster


@dataclass(frozen=True)
class Session:
    """One call of the plugin: its flags, where it prints, and the cluster, which is connected to when first used."""

    options: argparse.Namespace

    @cached_property
    def cluster(self) -> Cluster:
        # Here and not above: help and completion of commands need no cluster, and its client loads slowly.
        from kubectl_skill.cluster import Access, connect  # noqa: PLC0415

        return connect(Access(**{field.name: getattr(self.options, field.name) for field in fields(Access)}))

    @cached_property
    def out(self) -> Console:
        return console()

    @cached_property
    def err(self) -> Console:
        return console(sys.stderr)

    def now(self) -> float:
        """Returns the Unix time."""
        return time.time()

    def document(self, value: Any) -> None:
        """Prints JSON, never wrapped or coloured."""
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def note(self, words: str) -> None:
        """Says something beside the answer, which programs may read."""
        self.err.print(clean(words), markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Command:
    """One word of the plugin."""

    name: str
    help: str
    """One line, without a full stop."""
    examples: str
    """Lines to copy."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Session], int]
    """Returns the exit code; raises PluginError."""


def add_name(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Adds the positional argument that names a SkillUpdate."""
    parser.add_argument("name", metavar="NAME", nargs=None if needed else "?", help="of the SkillUpdate")
