"""How the cluster's tools talk: progress lines for a person, one kind of error, one way to run a command."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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

    With `log`, all output goes there as it comes, and the result is empty.

    Raises:
        ClusterError: the command failed; the message has the end of its own error output.
    """
    words = [str(word) for word in argv]
    with log.open("w") if log else nullcontext(subprocess.PIPE) as output:
        done = subprocess.run(
            words,
            input=stdin or "",
            stdout=output,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    if done.returncode != 0:
        said = tail(log) if log else "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        where = f" (all of it is in {log})" if log else ""
        raise ClusterError(f"`{' '.join(words[:12])}` ended with {done.returncode}{where}:\n{said}")
    return done.stdout or ""
