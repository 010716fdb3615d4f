"""Where a command prints: a terminal with colours and a width, or a pipe that gets plain, unbroken lines.

rich itself respects NO_COLOR, FORCE_COLOR, TERM=dumb and COLUMNS.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 300
"""Columns of a pipe: a program that reads it wants whole lines."""


def console(stream: TextIO | None = None) -> Console:
    """Returns a console on a stream (standard output); text that its encoding lacks is replaced, not fatal."""
    stream = stream or sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)
