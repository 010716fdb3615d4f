"""How the cluster's tools talk: progress lines for a person, one kind of error, one way to run a command."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class ClusterError(RuntimeError):
    """One sentence that says what did not work and the way out; the command line prints it without a traceback."""


def say(message: str) -> None:
    """Print a progress line to standard error, which leaves standard output to results."""
    print(message, file=sys.stderr, flush=True)


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log, or an empty string where there is none."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Run a command to its end and return its standard output; `env` is added to the environment.

    With `log`, the output goes there and only its tail is shown, in the error.

    Raises:
        ClusterError: the command failed; the message has its own error output.
    """
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        input=stdin if stdin is not None else None,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
    if log is not None:
        log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(words[:12])}` ended with {done.returncode}:\n{last}")
    return done.stdout
