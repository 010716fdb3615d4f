"""When two texts count as the same: used by graders and by the search for duplicates, and by nothing that trains."""

from __future__ import annotations

import unicodedata

_FINAL_PUNCTUATION = ".,;:!?…。！？"
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′ʼ", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u200b\u2060\ufeff\u00ad"),  # seen by nobody: zero-width spaces and joiners, soft hyphens
    }
)
"""What a keyboard has once and typography has many of."""


def normalize(text: str) -> str:
    """Returns `text` in Unicode's NFKC case folding, with plain quotes and dashes, single spaces, no final punctuation.

    Applying it twice changes nothing.
    Source: Unicode Standard, section 3.13, D146 (toNFKC_Casefold, without removal of ignorable code points).
    """
    plain = unicodedata.normalize("NFD", text.translate(_TYPOGRAPHY))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain.casefold()).casefold())
    folded = unicodedata.normalize("NFKC", folded.translate(_TYPOGRAPHY))
    return " ".join(folded.split()).rstrip(_FINAL_PUNCTUATION + " ")
