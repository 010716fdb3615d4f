"""The picture of an update's life in docs/operator.md, as arrows between phases."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from tests.operator.sim import Sim

PAGE = Path(__file__).parents[2] / "docs/operator.md"
BEGINNING = "[*]"
ASIDE = "Suspended"
"""Reached from anywhere before a rollout, and left to anywhere: said in words below the picture."""


def arrows() -> set[tuple[str, str]]:
    """Returns the arrows that are drawn."""
    return set(re.findall(r"^    (\S+) --> (\w+)", PAGE.read_text(), re.MULTILINE))


ARROWS = arrows()


def seen(sim: Sim) -> set[tuple[str, str]]:
    """Returns the changes of phase that a person has seen."""
    return set(pairwise([BEGINNING, *sim.phases]))


def is_drawn(before: str, after: str) -> bool:
    """Returns whether arrows lead from one phase to another: what is short may have gone unseen between."""
    reached, new = {before}, {before}
    while new:
        new = {end for start, end in ARROWS if start in new} - reached
        reached |= new
    return after in reached


def assert_drawn(sim: Sim) -> None:
    """Fails where an update has gone a way that is not drawn."""
    for before, after in seen(sim):
        assert ASIDE in {before, after} or is_drawn(before, after), f"{before} --> {after} is not in {PAGE.name}"
