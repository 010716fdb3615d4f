"""Finds the few questions that resemble, or stand inside, one of very many training prompts.

Only the questions are indexed. Training prompts pass by once and are forgotten, so memory depends on the suites alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from skill_trainer.data.record import Record
from skill_trainer.graders.normalization import normalize

SIMILAR = 0.8
"""Share of common five-letter sequences from which two questions are called near-duplicates."""
SHORTEST_INSIDE = 20
"""Letters from which a question that stands inside a training prompt is no accident."""


@dataclass(frozen=True, slots=True)
class Pair:
    train: Record
    other: Record
    inside: bool = False
    """The other's question is part of the training prompt, which is longer."""


def similar_records(train: Sequence[Record], others: Sequence[Record], similar: float = SIMILAR) -> list[Pair]:
    """Returns each of `others` that resembles a training prompt, or stands inside one, with the first such prompt.

    Two questions resemble each other where the Jaccard similarity of their sets of five-letter sequences is at least
    `similar`, but they are not equal. Only those are compared that share one of their rarest sequences; by the
    prefix-filter principle none is missed. What has been found is not looked for again, so the time does not grow with
    how alike all of them are.
    Source: Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006.
    """
    index = _Index(others, similar)
    pairs: list[Pair] = []
    for record in train:
        text = normalize(record.question)
        sequences = _sequences(text)
        pairs += [Pair(record, others[place]) for place in index.resembling(text, sequences)]
        pairs += [Pair(record, others[place], inside=True) for place in index.inside(text, sequences)]
        if not index.left:
            break
    return pairs


class _Index:
    """The questions that nothing was found for yet, by their rarest sequences."""

    def __init__(self, others: Sequence[Record], similar: float) -> None:
        self._similar = similar
        self._texts = [normalize(record.question) for record in others]
        self._sequences = [_sequences(text) for text in self._texts]
        self._frequency = Counter(sequence for sequences in self._sequences for sequence in sequences)
        self._by_prefix: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self._by_rarest: dict[str, list[int]] = defaultdict(list)
        self.left = set(range(len(others)))
        for place, sequences in enumerate(self._sequences):
            rarest = self._rarest(sequences)
            for sequence in rarest:
                self._by_prefix[sequence][len(sequences)].add(place)
            if len(self._texts[place]) >= SHORTEST_INSIDE:
                self._by_rarest[rarest[0]].append(place)

    def resembling(self, text: str, sequences: frozenset[str]) -> list[int]:
        """Returns the places of those left that resemble a text, and looks for them no more."""
        known = sequences & self._frequency.keys()
        if len(known) < self._similar * len(sequences):
            return []  # most of it stands in no question: the common case
        candidates = self._sharing_a_rare_one(sequences) & self.left
        found = [place for place in candidates if self._texts[place] != text and self._near(place, sequences)]
        self.left.difference_update(found)
        return sorted(found)

    def inside(self, text: str, sequences: frozenset[str]) -> list[int]:
        """Returns the places of those left that stand inside a longer text, and looks for them no more."""
        candidates = {place for each in sequences & self._by_rarest.keys() for place in self._by_rarest[each]}
        found = [place for place in candidates & self.left if text != self._texts[place] and self._texts[place] in text]
        self.left.difference_update(found)
        return sorted(found)

    def _sharing_a_rare_one(self, sequences: frozenset[str]) -> set[int]:
        size = len(sequences)
        sharing: set[int] = set()
        for position, each in enumerate(self._rarest(sequences)):
            for other_size, places in self._by_prefix.get(each, {}).items():
                # The first that they share is at `position`, so what comes before is not in common.
                if self._common(size, other_size) <= min(size - position, other_size):
                    sharing |= places
        return sharing

    def _near(self, place: int, sequences: frozenset[str]) -> bool:
        own = self._sequences[place]
        return len(own & sequences) >= self._common(len(own), len(sequences))

    def _common(self, size: int, other_size: int) -> float:
        """Returns how many sequences two sets of these sizes have in common where they are just similar enough."""
        return self._similar * (size + other_size) / (1 + self._similar) - 1e-6

    def _rarest(self, sequences: Collection[str]) -> list[str]:
        """Returns so many of the rarest that two sets with none of them in common cannot be similar."""
        ordered = sorted(sequences, key=lambda sequence: (self._frequency[sequence], sequence))
        return ordered[: len(ordered) - ceil(self._similar * len(ordered)) + 1]


def _sequences(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 5] for start in range(max(1, len(text) - 4)))
