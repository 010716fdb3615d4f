"""`choice`: the letter of a multiple-choice answer."""

from __future__ import annotations

import re

from skill_trainer.graders.grader import Grader

# From the surest sign to the weakest. "A" and "I" are words too: a bare letter must open the answer or be in brackets.
_SIGNS = (
    re.compile(r"(?:answer|choice|option)(?:\s+is)?\s*:?\s*[(*\[]*([A-Z])\b", re.IGNORECASE),
    re.compile(r"^[\s(*\[]*([A-Za-z])(?:[\s)*\].:,]*$|[)*\].:,])"),
    re.compile(r"[(\[]([A-Z])[)\]]"),
)


def chosen_letter(text: str) -> str:
    """Returns the upper-case letter that `text` settles on (the last one of the surest kind of sign), or ''."""
    for sign in _SIGNS:
        if letters := sign.findall(text):
            return str(letters[-1]).upper()
    return ""


def _problem(expected: str) -> str:
    if re.fullmatch(r"[A-Za-z]", expected.strip()):
        return ""
    return f"is not one letter ({expected!r:.40}): the grader choice compares letters such as B"


GRADER = Grader("choice", lambda text, expected: chosen_letter(text) == expected.strip().upper(), _problem)
