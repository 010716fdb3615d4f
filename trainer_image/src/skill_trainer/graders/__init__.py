"""The graders, one file each. A new grader is a new file here with a `GRADER`, and its name in `GraderName`.

Nothing else in the trainer knows how an answer is judged.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from skill_contract.spec import GraderName
from skill_trainer.graders.grader import Grader

if TYPE_CHECKING:
    from skill_trainer.data.record import Record


def _discovered() -> dict[GraderName, Grader]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    graders: list[Grader] = [module.GRADER for module in modules if hasattr(module, "GRADER")]
    return {grader.name: grader for grader in graders}


GRADERS = _discovered()


def grade(grader_name: GraderName, text: str, record: Record) -> bool:
    """Returns whether the model's `text` is a right answer to `record`, by the named grader."""
    return GRADERS[grader_name].right(text, record.expected)


__all__ = ["GRADERS", "Grader", "grade"]
