"""The one base class of everything that crosses a border as JSON: frozen, camelCase outside, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]
"""A whole number that every reader can hold, and that the CRD takes (int32)."""
Count = Annotated[int, Field(ge=0, lt=2**31)]


_SHOWN = 20
"""As many problems of a document are named; all are counted."""


class ContractError(ValueError):
    """A document that does not fit its schema; the message has one line per problem: place, reason, value."""


class Document(BaseModel):
    """A frozen JSON document. Field names are snake_case in Python and camelCase in JSON, as Kubernetes writes them."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
    )

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Returns the document built from plain JSON values.

        Raises:
            ContractError: when a key is unknown, missing or of the wrong kind.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise ContractError(_one_line_per_problem(error)) from error

    @classmethod
    def parse_json(cls, text: str | bytes) -> Self:
        """Returns the document in a JSON text; raises ContractError as `parse` does."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(_one_line_per_problem(error)) from error

    def dump(self) -> dict[str, Any]:
        """Returns plain JSON values with camelCase keys; keys whose value is None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def dump_json(self) -> str:
        """Returns the compact JSON text of `dump`."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def _one_line_per_problem(error: ValidationError) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:_SHOWN]:
        place = ".".join(str(part)[:80] for part in problem["loc"]) or "(document)"
        lines.append(f"{place}: {problem['msg']} (got {problem['input']!r:.80})")
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    return "\n".join(lines)
