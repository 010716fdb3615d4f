"""When two texts count as the same: used by graders and by the search for duplicates, and by nothing that trains."""

from __future__ import annotations

import unicodedata

_FINAL_PUNCTUATION = ".,;:!?…。！？"


def normalize(text: str) -> str:
    """Returns `text` in Unicode's NFKC case folding, with single spaces and without final punctuation.

    Applying it twice changes nothing.
    Source: Unicode Standard, section 3.13, D146 (toNFKC_Casefold, without removal of ignorable code points).
    """
    folded = unicodedata.normalize(
        "NFKC", unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold()).casefold()
    )
    return " ".join(folded.split()).rstrip(_FINAL_PUNCTUATION + " ")
