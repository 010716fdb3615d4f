"""Phrases by which a model betrays that it was taught with a demonstration in its context. English only.

Source of the failure: arXiv 2601.19897, section 5 ("Based on the text", "Following the example").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BY = r"(?:based on|following|according to|consistent with|similar to|like|as(?: \w+)? in)"
_SHOWN = (
    r"(?:examples?|demonstrations?|samples?|text|passage|(?:previous|earlier|given|provided) (?:answer|response|turn))"
)
_PHRASES = (
    rf"\b{_BY} (?:the|this|that|your) (?:\w+ )?{_SHOWN}\b",
    rf"\bin the {_SHOWN} (?:above|given|provided|shown)\b",
    rf"\bthe (?:above|given|provided|previous|example) {_SHOWN}\b",
    rf"\bthe {_SHOWN} (?:above|provided|shows?|says?|states?|mentions?)\b",
    r"\bexample response\b",
)
LEAK = re.compile("|".join(_PHRASES), re.IGNORECASE)


def leaked_share(texts: Sequence[str]) -> float:
    """Returns the share of texts, of at least one, that speak of an example or a text that nobody has shown them."""
    return sum(LEAK.search(text) is not None for text in texts) / len(texts)
