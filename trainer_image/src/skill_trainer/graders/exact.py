"""`exact`: the whole answer equals the expected one after normalisation."""

from __future__ import annotations

from skill_trainer.graders.grader import Grader
from skill_trainer.graders.normalization import normalize

GRADER = Grader("exact", lambda text, expected: normalize(text) == normalize(expected))
