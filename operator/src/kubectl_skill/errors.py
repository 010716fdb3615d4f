"""How a command ends: exit codes that scripts can tell apart, and an error for each that is not a success."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    DONE = 0
    NOT_WELL = 1
    """The command did its work, and what it found is not well: an update that failed, data that cannot be used."""
    USAGE = 2
    """As argparse has it."""
    REFUSED = 3
    """The cluster refuses it, or it makes no sense where the update stands."""
    NOT_FOUND = 4
    UNAVAILABLE = 5
    """The cluster, the store or a package that is needed is not there."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


class PluginError(Exception):
    """What a person reads instead of a traceback: the value, the place and the way out."""

    code: ClassVar[ExitCode] = ExitCode.NOT_WELL


class UsageError(PluginError):
    code = ExitCode.USAGE


class RefusedError(PluginError):
    code = ExitCode.REFUSED


class NotFoundError(PluginError):
    code = ExitCode.NOT_FOUND


class UnavailableError(PluginError):
    code = ExitCode.UNAVAILABLE
