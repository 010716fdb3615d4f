"""Makes broken documents of whole ones: by structure where they are JSON, by bytes otherwise.

The same seed makes the same inputs.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

_DEEP: Any = "x"
for _ in range(150):
    _DEEP = [_DEEP]

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**30,
    1e308,
    -1e308,
    5e-324,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../b",
    "%2e%2e",
    "\ud800",
    "\u202e",
    "é" * 50,
    "x" * 5000,
    "9" * 5000,
    "NaN",
    "1e999",
    "True",
    "[",
    "{{ 7 * 7 }}",
    "{}",
    "${HOME}",
    "$(id)",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59-23:59",
    "sha256:",
    "\n",
    "a\r\nb",
    [],
    {},
    [[]],
    [None],
    {"": ""},
    _DEEP,
)
PIECES: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92\xa9",
    b"\n",
    b"\r\n",
    b"[" * 200,
    b'{"a":' * 200,
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"-Infinity",
    b"null",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"..",
    b"/",
    b"%2e",
    b"://",
    b"@sha256:",
    b" ",
    b"\t",
    b"(a+)+$",
    b"((",
    b"```",
    b"<tool_call>",
    b"{",
    b"}",
    b"]",
    b",",
    b":",
    b"-",
    b".",
)


class Mutator:
    """Makes inputs without end."""

    def __init__(self, seeds: Sequence[bytes], chance: random.Random) -> None:
        assert seeds, "nothing to begin with"
        self._seeds, self._chance = seeds, chance

    def inputs(self) -> Iterator[bytes]:
        """Yields the seeds, then changed ones."""
        yield from self._seeds
        while True:
            yield self.changed(self._chance.choice(self._seeds))

    def changed(self, data: bytes) -> bytes:
        """Returns an input with some changes: one most often, so that one thing is wrong; sometimes many."""
        for _ in range(self._chance.choice((1, 1, 1, 2, 3, 8))):
            by_structure = self._chance.random() < 0.7 and self._restructured(data)
            data = by_structure or self._rewritten(data)
        return data

    def _restructured(self, data: bytes) -> bytes | None:
        """Returns JSON with one value changed, of one line where there are several; None where it is no JSON."""
        lines = data.split(b"\n")
        number = self._chance.randrange(len(lines))
        head, mark, text = lines[number].rpartition(b"\0")  # parts of an input stand between zero bytes
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        lines[number] = head + mark + _encoded(self._altered(document))
        return b"\n".join(lines)

    def _altered(self, document: Any) -> Any:
        document = copy.deepcopy(document)
        places = list(_places(document))
        if not places:
            return self._chance.choice(VALUES)
        container, key = self._chance.choice(places)
        match self._chance.randrange(5):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[self._chance.choice(("", "x", key.upper(), "\ud800", "a" * 300))] = container[key]
            case 2:
                container[key] = [copy.deepcopy(container[key])] * self._chance.choice((1, 2, 50))
            case 3 if isinstance(container[key], str):
                container[key] = self._rewritten(container[key].encode(errors="surrogatepass")).decode(errors="replace")
            case _:
                container[key] = self._chance.choice(VALUES)
        return document

    def _rewritten(self, data: bytes) -> bytes:
        chance = self._chance
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 1, 2, 4, 16, 64, 1024)))
        match chance.randrange(6):
            case 0:
                return data[:start] + bytes([chance.randrange(256)]) + data[start + 1 :]
            case 1:
                return data[:start]
            case 2:
                return data[:start] + data[end:]
            case 3:
                return data[:end] + data[start:end] * chance.choice((1, 2, 30)) + data[end:]
            case 4:
                return data[:start] + chance.choice(self._seeds)[start:]
            case _:
                return data[:start] + chance.choice(PIECES) + data[start:]


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yields container and key of every value inside."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        if depth < 40:
            yield from _places(value[key], depth + 1)


def _encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")
