"""Counts what a target does with inputs: errors that were clean, defects, the slowest input. Knows no fuzzer."""

from __future__ import annotations

import base64
import re
import resource
import time
import traceback
from dataclasses import dataclass, field

from tests.fuzz.target import Target

LIMIT_SECONDS = 5.0
"""Of one input. More is a defect (graders give a pattern one second)."""
LIMIT_GROWTH_MIB = 512
"""Of the process's memory over all inputs. More is a defect."""
_MOST_DEFECTS = 20


def peak_mib() -> int:
    """Returns the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@dataclass
class Bench:
    """One target, and what has been seen of it."""

    target: Target
    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    errors: set[str] = field(default_factory=set)
    """Shapes of clean errors: their messages without what is particular to an input."""
    defects: dict[str, dict[str, str]] = field(default_factory=dict)
    """By kind of exception and the line that raised it: an input, in base64, and the trace."""
    begun_mib: int = 0
    """What the process had before the first input."""

    def feed(self, data: bytes) -> None:
        """Gives the target one input."""
        if not self.inputs:
            self.begun_mib = peak_mib()  # the seeds have brought the libraries
        self.inputs += 1
        started = time.process_time()
        try:
            message = self.target.read(data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self._defect(f"{type(error).__name__} at {_origin(error)}", data, traceback.format_exc())
            return
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        if seconds > LIMIT_SECONDS:
            self._defect("too slow", data, f"{seconds:.1f} s")
        if message:
            self.errors.add(_shape(message))
        else:
            self.accepted += 1
        if self.inputs % 1000 == 0 and peak_mib() - self.begun_mib > LIMIT_GROWTH_MIB:
            self._defect("too much memory", data, f"{peak_mib() - self.begun_mib} MiB more than at the beginning")

    def _defect(self, kind: str, data: bytes, why: str) -> None:
        if len(self.defects) < _MOST_DEFECTS:
            self.defects.setdefault(kind, {"input": base64.b64encode(data).decode(), "why": why[-3000:]})

    def facts(self) -> dict[str, object]:
        """Returns what has been seen, as JSON values."""
        return {
            "inputs": self.inputs,
            "accepted": self.accepted,
            "errors": len(self.errors),
            "slowest": round(self.slowest, 3),
            "grown": peak_mib() - self.begun_mib,
            "defects": self.defects,
        }


def _origin(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/skill_" in frame.filename] or frames
    return f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}"


def _shape(message: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"|b'.*|\(got .*|[0-9]+|[^\x20-\x7e]+", "_", " ".join(message.splitlines()[:2]))[
        :120
    ]
