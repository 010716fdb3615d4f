"""Finds questions that stand in both training and evaluation data: a score on those says nothing about learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from skill_trainer.data.record import DataError, Record
from skill_trainer.data.similarity import SIMILAR, Pair, similar_records
from skill_trainer.graders.normalization import normalize

SHOWN = 10


def check_records(
    train: Sequence[Record], held_out: Sequence[Record], retention: Mapping[str, Sequence[Record]]
) -> list[str]:
    """Returns warnings, one sentence each: what repeats, contradicts itself, or gives a question away.

    Raises:
        DataError: `DuplicatesFound` where a held-out question, normalised, is also a training prompt.
    """
    questions = {normalize(record.question): record for record in train}
    shared = _shared(questions, held_out)
    if shared:
        raise DataError("DuplicatesFound", _duplicate_message(shared, len(held_out)))
    return [*_doubles(train), *warnings_of_suites(train, {"held-out": held_out, **retention})]


def warnings_of_suites(train: Sequence[Record], suites: Mapping[str, Sequence[Record]]) -> list[str]:
    """Returns what makes suites of questions say less than they seem to, one sentence each: repeated ones, known ones.

    The user's, or those that a version has from the skills before it.
    """
    questions, warnings = {normalize(record.question): record for record in train}, list[str]()
    for suite, records in suites.items():
        warnings += _repeated(suite, records)
        if shared := _shared(questions, records):
            warnings.append(
                f"retention suite {suite}: {_places(shared)} also in the training data: it cannot show forgetting there"
            )
    found = similar_records(train, [record for records in suites.values() for record in records])
    for name, records in suites.items():
        mine = {id(record) for record in records}
        warnings += _pair_warning(name, [pair for pair in found if id(pair.other) in mine])
    return warnings


def _doubles(train: Sequence[Record]) -> Iterator[str]:
    """Yields what is wrong with training prompts that stand there more than once, system message and all."""
    first: dict[str, Record] = {}
    repeated, contradicting = 0, list[Pair]()
    for record in train:
        key = normalize("\n".join(str(message["content"]) for message in record.messages))
        earlier = first.setdefault(key, record)
        if earlier is record:
            continue
        if normalize(earlier.completion or "") == normalize(record.completion or ""):
            repeated += 1
        else:
            contradicting.append(Pair(earlier, record))
    if repeated:
        yield f"train: {repeated} of {len(train)} records repeat another one, prompt and completion: they weigh more"
    if contradicting:
        yield (
            f"train: {_places(contradicting)} also there with another completion: the model learns both, "
            "so make sure that both are right"
        )


def _shared(questions: Mapping[str, Record], records: Sequence[Record]) -> list[Pair]:
    keys = ((normalize(record.question), record) for record in records)
    return [Pair(questions[key], record) for key, record in keys if key in questions]


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


def _pair_warning(name: str, pairs: Sequence[Pair]) -> Iterator[str]:
    if near := [pair for pair in pairs if not pair.inside]:
        yield f"{name}: {_places(near)} nearly the same in the training data (similarity at least {SIMILAR})"
    if inside := [pair for pair in pairs if pair.inside]:
        yield f"{name}: {_places(inside)} part of a longer training prompt: training may have shown the answer"
