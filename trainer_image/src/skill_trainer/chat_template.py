"""A chat template is a program of whoever made the model: what it does wrong is said in one way. Runs none itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateError

_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


SAID = "Hello"


def closing_first(ends: tuple[int, ...], tokenizer: Any) -> tuple[int, ...]:
    """Returns the tokens that end an answer, the one with which the chat template closes a turn before the others.

    That is what a model has learned to write there; the tokenizer's own end token may be that of a whole text (of Gemma
    <eos>, where a turn ends in <end_of_turn>).
    """
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": SAID}]
    try:
        with faults_of_the_template():
            text: str = tokenizer.apply_chat_template(chat, tokenize=False)
    except TemplateError:  # of a chat so plain: said where the first record is read
        return ends
    after = tokenizer.encode(text.rpartition(SAID)[2], add_special_tokens=False)
    return tuple(sorted(ends, key=lambda end: after.index(end) if end in after else len(after)))


@contextmanager
def faults_of_the_template() -> Iterator[None]:
    """Makes a TemplateError of whatever stops a template."""
    try:
        yield
    except TemplateError:
        raise
    except _FAULTS as error:
        raise TemplateError(f"{type(error).__name__}: {str(error)[:200]}") from error
