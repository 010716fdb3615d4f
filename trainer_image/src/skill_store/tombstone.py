"""What stands in a manifest's place once retention has taken the version away: so no version goes without a word.

It is written over the manifest by compare-and-swap, before the first file goes: from then on the folder is no version.
It keeps the manifest, so that the lineage stays whole, and stays for ever, so that a publisher who comes late notices.
"""

from __future__ import annotations

from skill_contract.model import ContractError, Document
from skill_store.errors import DigestMismatch

_BEGINNING = b'{"removed":'


class Tombstone(Document):
    """Takes the place of `.skill/manifest.json`."""

    removed: str
    """When, RFC 3339, UTC. The first key: no manifest begins with it."""
    by: str
    """A word that only one removal has, so that it knows its own."""
    why: str = ""
    done: bool = False
    """All files are gone: the folder may be filled anew. Until then nobody else may write there."""
    again: bool = False
    """What is removed is no version, only what an upload has left in a folder that had been emptied before."""
    manifest: str = ""
    """The manifest that stood here, to the byte; empty for an upload that was never completed."""

    @classmethod
    def of(cls, data: bytes, place: str) -> Tombstone | None:
        """Returns the tombstone in a manifest's place, or None for anything else.

        Raises:
            DigestMismatch: where it is broken.
        """
        if not data.startswith(_BEGINNING):
            return None
        try:
            return cls.parse_json(data)
        except ContractError as error:
            raise DigestMismatch(f"{place} is a damaged tombstone: {error}", file=place) from error

    def encode(self) -> bytes:
        """Returns the bytes to store."""
        return self.dump_json().encode()
