"""How far a model has gone from another one, of which only some answers are left: no weights, no second model.

Those answers were sampled, to questions that are to be kept. By how much less probable they have become, on average, is
an estimate of KL(first || now), in nats per token of an answer. Greedy answers would not do: they become more probable
to whoever is surer, however far away.

Sources: that such a divergence goes with what is forgotten, arXiv 2509.04259; that it adds up over updates, 2607.11020.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from skill_contract.model import Document
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite
from skill_trainer.likelihood import nats_by_answer
from skill_trainer.model import LanguageModel
from skill_trainer.parallel import ALONE, Crew
from skill_trainer.prompts import student_messages
from skill_trainer.report import Drift
from skill_trainer.rollout import Answer, sample
from skill_trainer.schedule import generator
from skill_trainer.steps.ground import Ground
from skill_trainer.steps.probe import spread
from skill_trainer.steps.workplace import Workplace

QUESTIONS = 32
"""Of all suites together, at most, and no more than a batch has: so a reading costs a run little, whatever its size."""
TOKENS = 64
"""Of an answer, the first ones."""
ANSWERS = "answers.json"
"""In the run's folder the parent's; in `.skill/` of a version those of the first of its lineage that are known."""

_Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer."""


class Said(Document):
    """An answer as token ids, so that nobody reads its text in another way, and what whoever gave it thought of it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    nats: float
    """Mean negative log-probability of the answer's tokens."""


class Answers(Document):
    """What a model has said to some questions."""

    version: str
    """Of the model."""
    said: tuple[Said, ...]

    def drift(self, model: LanguageModel, crew: Crew = ALONE) -> float | None:
        """Returns how far `model` is from whoever said this, nats per token; None where nothing was said.

        Each process of the crew reads its share.
        """
        now = _nats(model, [(each.prompt, each.answer) for each in self.said], crew)
        return fmean(nats - each.nats for nats, each in zip(now, self.said, strict=True)) if now else None


def parents_answers(work: Workplace, model: LanguageModel, ground: Ground) -> Answers:
    """Returns what the parent, which `model` still is, answers to some of the questions that are to be kept."""

    def make() -> bytes:
        method = work.config.method
        asked = _some(ground.suites[1:], min(QUESTIONS, method.batch_size))
        prompts = [tuple(model.tokens.encode(student_messages(each), each.tools)) for each in asked]

        def answer(rows: Sequence[int]) -> list[Answer]:
            return sample(
                model, prompts, max_new_tokens=min(TOKENS, method.rollout.max_new_tokens), temperature=1.0,
                generator=generator(method.seed, "drift", 0), rows=rows,
            )  # fmt: skip

        answers = work.crew.spread(len(prompts), answer)
        pairs = [(prompt, each.tokens) for prompt, each in zip(prompts, answers, strict=True)]
        nats = _nats(model, pairs, work.crew)  # as it will be read: a sampler rounds otherwise
        said = (Said(prompt=pair[0], answer=pair[1], nats=each) for pair, each in zip(pairs, nats, strict=True))
        return Answers(version=ground.origin.parent.version, said=tuple(said)).dump_json().encode()

    return Answers.parse_json(work.kept(ANSWERS, make))


def first_answers(ground: Ground, parents: Answers) -> Answers:
    """Returns those of the lineage's first version whose answers are known: of the release, or the parent's own."""
    path = ground.parent / ".skill" / ANSWERS
    return Answers.parse_json(path.read_bytes()) if path.exists() else parents


class _Drifts(Document):
    drifts: tuple[Drift, ...]


def measure_drifts(work: Workplace, model: LanguageModel, *answers: Answers) -> tuple[Drift, ...]:
    """Returns how far the new version is from each of those who gave these answers, each of them once."""

    def make() -> bytes:
        drifts = [
            Drift(version=each.version, nats=nats, questions=len(each.said))
            for each in {each.version: each for each in answers}.values()
            if (nats := each.drift(model, work.crew)) is not None
        ]
        return _Drifts(drifts=tuple(drifts)).dump_json().encode()

    return _Drifts.parse_json(work.kept("drift.json", make)).drifts


def _some(suites: Sequence[Suite], most: int) -> list[Record]:
    """Returns at most so many questions, as many of each suite, evenly spread over it."""
    each = max(1, most // max(1, len(suites)))
    return [suite.records[place] for suite in suites for place in spread(len(suite.records), each)][:most]


def _nats(model: LanguageModel, pairs: Sequence[_Pair], crew: Crew) -> list[float]:
    def read(rows: Sequence[int]) -> list[float]:
        return nats_by_answer(model, [pairs[row][0] for row in rows], [pairs[row][1] for row in rows])

    return crew.spread(len(pairs), read)
