"""Whether a pod's answers prove that it serves the candidate's weights. Pure: no HTTP, no storage.

The trainer recorded what the candidate answers, greedily, to some prompts, and what its parent answered. Another
engine's arithmetic may flip a token here and there, so a proof is a count and not equality throughout. Where the engine
tells how probable its tokens were, weights that happen to say the same are told apart by that. What the tolerances are
worth is counted by `python -m benchmarks.proof` (docs/serving.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from skill_contract.manifest import Golden, GoldenSet

NEEDED_SHARE = 0.75
"""Share of the prompts that must be answered with the candidate's text."""
MOST_NATS = 0.1
"""Mean difference of the log-probabilities of the same tokens, nats a token, up to which they are the same weights."""
_SHOWN = 120
"""Characters of a text that evidence shows."""


@dataclass(frozen=True)
class Answer:
    """What an engine said."""

    text: str
    logprobs: tuple[float, ...] = ()
    """Of its tokens; empty where the engine does not tell."""


@dataclass(frozen=True)
class Mismatch:
    """One prompt that a pod answered otherwise."""

    prompt: str
    expected: str
    got: str


@dataclass(frozen=True)
class PodProof:
    """How one pod's answers compare."""

    pod: str
    asked: int
    matched: int
    """Answers that are the candidate's text."""
    telling: int
    """Prompts on which candidate and parent differ."""
    as_candidate: int
    as_parent: int
    """Of the telling prompts: answers that are the candidate's, the parent's text."""
    mismatches: tuple[Mismatch, ...]
    nats: float | None = None
    """Mean difference of the log-probabilities of answers that are the candidate's text; None where nobody tells."""

    @property
    def proved(self) -> bool:
        """Returns whether the answers are the candidate's, as probable as with its own weights where that is told."""
        return self.proved_by_text and (self.nats is None or self.nats <= MOST_NATS)

    @property
    def proved_by_text(self) -> bool:
        """Returns whether enough answers match, and old weights are ruled out by the prompts that tell them apart."""
        return (
            self.asked > 0
            and self.matched >= NEEDED_SHARE * self.asked
            and (self.telling == 0 or self.as_candidate > self.as_parent)
        )

    def evidence(self) -> str:
        """Returns one sentence with the counts, and the first wrong answer."""
        text = f"pod {self.pod} answered {self.matched} of {self.asked} golden prompts as the candidate does"
        if self.as_parent >= self.as_candidate and self.telling:
            text += f", and {self.as_parent} of {self.telling} as the version before does: it may serve the old weights"
        if self.nats is not None:
            text += f", with log-probabilities {self.nats:.3f} nats a token from its own ({MOST_NATS} are allowed)"
        if self.mismatches:
            first = self.mismatches[0]
            text += f"; to {first.prompt!r} it said {first.got!r} where {first.expected!r} was expected"
        return text


def judge(pod: str, golden: GoldenSet, answers: Sequence[Answer]) -> PodProof:
    """Returns how a pod's answers, one for each golden prompt in their order, compare with the recorded ones."""
    pairs = [(prompt, answer.text.strip()) for prompt, answer in zip(golden.prompts, answers, strict=True)]
    telling = [(prompt, answer) for prompt, answer in pairs if _tells(prompt)]
    wrong = [(prompt, answer) for prompt, answer in pairs if answer != prompt.text.strip()]
    return PodProof(
        pod=pod,
        asked=len(pairs),
        matched=len(pairs) - len(wrong),
        telling=len(telling),
        as_candidate=sum(answer == prompt.text.strip() for prompt, answer in telling),
        as_parent=sum(answer == prompt.parent_text.strip() for prompt, answer in telling),
        mismatches=tuple(_mismatch(prompt, answer) for prompt, answer in wrong),
        nats=_distance(golden, answers),
    )


def _distance(golden: GoldenSet, answers: Sequence[Answer]) -> float | None:
    """Some engines count the token that ends an answer and some do not: what both have is compared."""
    differences = [
        abs(recorded - told)
        for prompt, answer in zip(golden.prompts, answers, strict=True)
        if answer.text.strip() == prompt.text.strip()
        for recorded, told in zip(prompt.token_logprobs, answer.logprobs, strict=False)
    ]
    return fmean(differences) if differences else None


def backwards(golden: GoldenSet) -> GoldenSet:
    """Returns the prompts that prove a return from the candidate to its parent: both texts in each other's place."""
    swapped = [
        prompt.model_copy(update={"text": prompt.parent_text, "parent_text": prompt.text, "token_logprobs": ()})
        for prompt in golden.prompts
        if prompt.parent_text
    ]
    return GoldenSet(prompts=tuple(swapped))


def _tells(prompt: Golden) -> bool:
    return bool(prompt.parent_text) and prompt.parent_text.strip() != prompt.text.strip()


def _mismatch(prompt: Golden, answer: str) -> Mismatch:
    question = str(prompt.messages[-1].get("content", "")) if prompt.messages else ""
    return Mismatch(prompt=_shortened(question), expected=_shortened(prompt.text.strip()), got=_shortened(answer))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
