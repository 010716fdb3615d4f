"""The last thing that a program of ours does in a pod: it leaves its answer where Kubernetes looks for it."""

from __future__ import annotations

import os
from pathlib import Path

from skill_contract.outcome import TERMINATION_LOG

VARIABLE = "SKILL_TERMINATION_LOG"


def write_termination_message(data: bytes) -> None:
    """Writes the message to the termination log, or to the file that SKILL_TERMINATION_LOG names.

    In one write and in place: the log is a mounted file, over which nothing can be renamed. Outside of a pod, where the
    log does not exist and no file is named, nothing is written.
    """
    named = os.environ.get(VARIABLE, "")
    path = Path(named or TERMINATION_LOG)
    if named or path.exists():
        path.write_bytes(data)
