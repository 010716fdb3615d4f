"""`regex`: the expected answer is a regular expression that is found in the answer.

Python's `re` syntax; case matters unless the pattern starts with `(?i)`. Matched by the library `regex`, which can be
told to give up: some patterns take longer than the universe on some answers, and one of them must not hang a run.
"""

from __future__ import annotations

import logging

import regex

from skill_trainer.graders.grader import Grader

TIMEOUT_SECONDS = 1.0
"""For one answer. What takes longer is wrong."""

_log = logging.getLogger(__name__)


def _problem(expected: str) -> str:
    try:
        regex.compile(expected)
    except regex.error as error:
        return f"is not a regular expression ({error}): escape its special characters or use the grader contains"
    return ""


def _right(text: str, expected: str) -> bool:
    try:
        return regex.search(expected, text, timeout=TIMEOUT_SECONDS) is not None
    except regex.error:
        return False
    except TimeoutError:
        _log.warning(
            "the pattern %.80r needs more than %g s on an answer of %d letters, which counts as wrong: "
            "write it without repetitions inside repetitions", expected, TIMEOUT_SECONDS, len(text),
        )  # fmt: skip
        return False


GRADER = Grader("regex", _right, _problem)
