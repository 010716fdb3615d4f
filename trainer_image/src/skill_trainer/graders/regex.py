"""`regex`: the expected answer is a regular expression that is found in the answer.

Python's `re` syntax; case matters unless the pattern starts with `(?i)`.
"""

from __future__ import annotations

import re

from skill_trainer.graders.grader import Grader


def _problem(expected: str) -> str:
    try:
        re.compile(expected)
    except re.error as error:
        return f"is not a regular expression ({error}): escape its special characters or use the grader contains"
    return ""


GRADER = Grader("regex", lambda text, expected: re.search(expected, text) is not None, _problem)
