"""`exact`: the whole answer equals the expected one after normalisation."""

from __future__ import annotations

from skill_trainer.graders.grader import Grader
from skill_trainer.graders.normalization import normalize


def _problem(expected: str) -> str:
    if normalize(expected):
        return ""
    return f"is nothing but punctuation ({expected!r:.40}), which an empty answer equals: use the grader regex"


GRADER = Grader("exact", lambda text, expected: normalize(text) == normalize(expected), _problem)
