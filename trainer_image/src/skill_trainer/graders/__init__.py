"""The graders, one file each. A new grader is a new file here with a `GRADER`, and its name in `GraderName`.

Nothing else in the trainer knows how an answer is judged.
"""

from __future__ import annotations

import importlib
import pkgutil

from skill_contract.spec import GraderName
from skill_trainer.graders.grader import Grader


def _discovered() -> dict[GraderName, Grader]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    graders: list[Grader] = [module.GRADER for module in modules if hasattr(module, "GRADER")]
    return {grader.name: grader for grader in graders}


GRADERS = _discovered()


def grade(grader_name: GraderName, text: str, expected: str) -> bool:
    """Returns whether the model's `text` is right where `expected` is the right answer, by the named grader."""
    return GRADERS[grader_name].right(text, expected)


__all__ = ["GRADERS", "Grader", "grade"]
