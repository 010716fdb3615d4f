"""A chat template is a program of whoever made the model: what it does wrong is said in one way. Runs none itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jinja2 import TemplateError

_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


@contextmanager
def faults_of_the_template() -> Iterator[None]:
    """Makes a TemplateError of whatever stops a template."""
    try:
        yield
    except TemplateError:
        raise
    except _FAULTS as error:
        raise TemplateError(f"{type(error).__name__}: {str(error)[:200]}") from error
