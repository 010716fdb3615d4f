"""What a grader is. Knows no grader by name and no record: a grader sees two strings and says right or wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skill_contract.spec import GraderName


@dataclass(frozen=True)
class Grader:
    """A named rule by which a model's text is right or wrong."""

    name: GraderName
    right: Callable[[str, str], bool]
    """`right(text, expected)`: whether the model's `text` is what `expected` asks for. Never raises."""
    problem: Callable[[str], str] = lambda _expected: ""
    """`problem(expected)`: why this grader cannot use an expected answer, with the way out; empty where it can."""
