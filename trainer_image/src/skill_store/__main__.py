"""`skill-store` and `python -m skill_store`: the command line, where all that it imports is installed.

Imports it only when it runs, so that a missing package is told in a sentence.
"""

from __future__ import annotations

import sys

from skill_contract.command_line import lacks
from skill_contract.outcome import ExitCode


def main() -> int:
    """Runs the command and returns its exit code."""
    try:
        from skill_store import cli  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        print(lacks("skill-store", "store", missing), file=sys.stderr)
        return ExitCode.USER_ERROR
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
