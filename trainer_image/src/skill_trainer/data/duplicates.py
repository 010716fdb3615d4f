"""Finds questions that stand in both training and evaluation data: a score on those says nothing about learning."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from skill_trainer.data.record import DataError, Record
from skill_trainer.graders.normalization import normalize

SHOWN = 10
SIMILAR = 0.8
"""Share of common five-letter sequences from which two questions are called near-duplicates."""


@dataclass(frozen=True)
class Pair:
    train: Record
    other: Record
    similarity: float
    """Jaccard similarity of the sets of five-letter sequences, 0 to 1."""


def check_records(
    train: Sequence[Record], held_out: Sequence[Record], retention: Mapping[str, Sequence[Record]]
) -> list[str]:
    """Returns warnings, one sentence each: near-duplicates and repeated questions.

    Raises:
        DataError: `DuplicatesFound` where a held-out question, normalised, is also a training prompt.
    """
    questions = {normalize(record.question): record for record in train}
    shared = _shared(questions, held_out)
    if shared:
        raise DataError("DuplicatesFound", _duplicate_message(shared, len(held_out)))
    warnings = list(_repeated("held-out", held_out))
    for suite, records in retention.items():
        warnings += _repeated(suite, records)
        if shared := _shared(questions, records):
            warnings.append(
                f"retention suite {suite}: {_places(shared)} also in the training data: it cannot show forgetting there"
            )
    for name, records in {"held-out": held_out, **retention}.items():
        warnings += _near_warning(name, near_duplicates(train, records))
    return warnings


def _shared(questions: Mapping[str, Record], records: Sequence[Record]) -> list[Pair]:
    keys = ((normalize(record.question), record) for record in records)
    return [Pair(questions[key], record, 1.0) for key, record in keys if key in questions]


def _places(pairs: Sequence[Pair]) -> str:
    shown = ", ".join(f"line {pair.other.line} (training line {pair.train.line})" for pair in pairs[:SHOWN])
    rest = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return f"{len(pairs)} questions, {shown}{rest}, are" if len(pairs) > 1 else f"1 question, {shown}, is"


def _duplicate_message(pairs: Sequence[Pair], total: int) -> str:
    example = pairs[0].other.question[:80]
    return (
        f"of {total} held-out records {_places(pairs)} also in the training data (for example {example!r}): "
        "remove them from one of the two files"
    )


def _repeated(name: str, records: Sequence[Record]) -> Iterator[str]:
    counts = Counter(normalize(record.question) for record in records)
    extra = sum(count - 1 for count in counts.values())
    if extra:
        yield f"{name}: {extra} of {len(records)} questions repeat another one: their interval is too narrow"


def _near_warning(name: str, pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return []
    return [f"{name}: {_places(pairs)} nearly the same in the training data (similarity at least {SIMILAR})"]


def near_duplicates(train: Sequence[Record], others: Sequence[Record], similar: float = SIMILAR) -> list[Pair]:
    """Returns, for each of `others`, its most similar training record where the similarity is in [similar, 1).

    Only records that share one of their rarest sequences are compared; by the prefix-filter principle none is missed.
    Source: Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", ICDE 2006.
    """
    train_sets, other_sets = ([_sequences(record) for record in group] for group in (train, others))
    frequency = Counter(sequence for sequences in (*train_sets, *other_sets) for sequence in sequences)
    holders: dict[str, list[int]] = defaultdict(list)
    for place, sequences in enumerate(train_sets):
        for sequence in _rarest(sequences, frequency, similar):
            holders[sequence].append(place)
    pairs = []
    for record, sequences in zip(others, other_sets, strict=True):
        candidates = {
            place for sequence in _rarest(sequences, frequency, similar) for place in holders.get(sequence, ())
        }
        scored = [(_jaccard(train_sets[place], sequences), -place) for place in candidates]
        best, place = max(scored, default=(0.0, 0))
        if similar <= best and normalize(train[-place].question) != normalize(record.question):
            pairs.append(Pair(train[-place], record, best))
    return pairs


def _sequences(record: Record) -> frozenset[str]:
    text = normalize(record.question)
    return frozenset(text[start : start + 5] for start in range(max(1, len(text) - 4)))


def _rarest(sequences: Iterable[str], frequency: Mapping[str, int], similar: float) -> list[str]:
    ordered = sorted(sequences, key=lambda sequence: (frequency[sequence], sequence))
    return ordered[: len(ordered) - ceil(similar * len(ordered)) + 1]


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
