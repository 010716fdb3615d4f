"""`choice`: the letter of a multiple-choice answer."""

from __future__ import annotations

import re

from skill_trainer.graders.grader import Grader

# "a" and "I" are words too: a small letter must end its sentence, a bare capital follow the word that announces it.
_LETTER = r"[\s(*\[{\"'“‘]*(?:([A-Z])\b|([a-z])(?=[)*\].:,;}\"'”’]|\s*$))"
# From the surest sign to the weakest; each finds an upper- or a lower-case letter.
_SIGNS = (
    re.compile(rf"(?i:answer|choice)(?i:\s+is)?\s*:?\s*(?i:option\s+)?{_LETTER}", re.MULTILINE),
    re.compile(rf"(?i:option)\s*:?\s*{_LETTER}", re.MULTILINE),
    re.compile(r"^[\s(*\[]*(?:([A-Z])|([a-z]))(?:[\s)*\].:,]*$|[)*\].:,])"),
    re.compile(r"[(\[{]([A-Z])()[)\]}]"),
)


def chosen_letter(text: str) -> str:
    """Returns the upper-case letter that `text` settles on (the last one of the surest kind of sign), or ''."""
    for sign in _SIGNS:
        if letters := sign.findall(text):
            return "".join(letters[-1]).upper()
    return ""


def _problem(expected: str) -> str:
    if re.fullmatch(r"[A-Za-z]", expected.strip()):
        return ""
    return f"is not one letter ({expected!r:.40}): the grader choice compares letters such as B"


GRADER = Grader("choice", lambda text, expected: chosen_letter(text) == expected.strip().upper(), _problem)
