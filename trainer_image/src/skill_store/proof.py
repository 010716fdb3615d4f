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

from skill_contract.manifest import Golden, GoldenSet, ToolCall

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
    calls: tuple[ToolCall, ...] = ()
    """The tool calls that the engine has taken out of its text, which then is only what stands around them."""


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
    """Prompts on which candidate and parent differ, in the form in which the engine answers."""
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

    @property
    def untold(self) -> str:
        """Returns that no text can tell the versions apart, and what does; empty where one can."""
        if self.telling:
            return ""
        others = "only digests and log-probabilities show" if self.nats is not None else "only digests show"
        return f"0 of {self.asked} golden prompts tell old weights from new: {others} which are served"

    def evidence(self) -> str:
        """Returns one sentence with the counts, and the first wrong answer."""
        text = f"pod {self.pod} answered {self.matched} of {self.asked} golden prompts as the candidate does"
        if self.as_parent >= self.as_candidate and self.telling:
            text += f", and {self.as_parent} of {self.telling} as the version before does: it may serve the old weights"
        if not self.telling:
            text += f"; {self.untold}"
        if self.nats is not None:
            text += f", with log-probabilities {self.nats:.3f} nats a token from its own ({MOST_NATS} are allowed)"
        if self.mismatches:
            first = self.mismatches[0]
            text += f"; to {first.prompt!r} it said {first.got!r} where {first.expected!r} was expected"
        return text


def judge(pod: str, golden: GoldenSet, answers: Sequence[Answer]) -> PodProof:
    """Returns how a pod's answers, one for each golden prompt in their order, compare with the recorded ones."""
    pairs = list(zip(golden.prompts, answers, strict=True))
    telling = [(prompt, answer) for prompt, answer in pairs if _tells(prompt, answer)]
    wrong = [(prompt, answer) for prompt, answer in pairs if not _is_candidates(prompt, answer)]
    return PodProof(
        pod=pod,
        asked=len(pairs),
        matched=len(pairs) - len(wrong),
        telling=len(telling),
        as_candidate=sum(_is_candidates(prompt, answer) for prompt, answer in telling),
        as_parent=sum(_is_parents(prompt, answer) for prompt, answer in telling),
        mismatches=tuple(_mismatch(prompt, answer) for prompt, answer in wrong),
        nats=_distance(pairs),
    )


def _distance(pairs: Sequence[tuple[Golden, Answer]]) -> float | None:
    """Some engines count the token that ends an answer and some do not: what both have is compared.

    Of a text only: equal calls may be written with other tokens.
    """
    differences = [
        abs(recorded - told)
        for prompt, answer in pairs
        if not answer.calls and _is_candidates(prompt, answer)
        for recorded, told in zip(prompt.token_logprobs, answer.logprobs, strict=False)
    ]
    return fmean(differences) if differences else None


def backwards(golden: GoldenSet) -> GoldenSet:
    """Returns the prompts that prove a return from the candidate to its parent: both texts in each other's place."""
    swapped = [
        prompt.model_copy(
            update={
                "text": prompt.parent_text, "calls": prompt.parent_calls,
                "parent_text": prompt.text, "parent_calls": prompt.calls, "token_logprobs": (),
            }
        )
        for prompt in golden.prompts
        if prompt.parent_text
    ]  # fmt: skip
    return GoldenSet(prompts=tuple(swapped))


def _is_candidates(prompt: Golden, answer: Answer) -> bool:
    return _is(answer, prompt.text, prompt.calls)


def _is_parents(prompt: Golden, answer: Answer) -> bool:
    return _is(answer, prompt.parent_text, prompt.parent_calls)


def _is(answer: Answer, text: str, calls: tuple[ToolCall, ...] | None) -> bool:
    """Returns whether an answer is a recorded one: by its calls alone where the engine has taken any out of it.

    What is left of the text then is up to the engine: one keeps the words before a call, another drops them.
    """
    return answer.calls == calls if answer.calls else answer.text.strip() == text.strip()


def _tells(prompt: Golden, answer: Answer) -> bool:
    if answer.calls:
        return bool(prompt.parent_text) and prompt.calls != prompt.parent_calls
    return bool(prompt.parent_text) and prompt.parent_text.strip() != prompt.text.strip()


def _mismatch(prompt: Golden, answer: Answer) -> Mismatch:
    question = str(prompt.messages[-1].get("content", "")) if prompt.messages else ""
    got = ", ".join(f"{call.name}({call.arguments})" for call in answer.calls) or answer.text.strip()
    return Mismatch(prompt=_shortened(question), expected=_shortened(prompt.text.strip()), got=_shortened(got))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
