"""`skill-operator` and `python -m skill_operator`: the command line, where all that it imports is installed.

Imports it only when it runs, so that a missing package is told in a sentence.
"""

from __future__ import annotations

import os
import sys

from skill_contract.command_line import lacks


def main() -> int:
    """Runs the command and returns its exit code."""
    try:
        from skill_operator import cli  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        print(lacks("skill-operator", "operator", missing), file=sys.stderr)
        return os.EX_USAGE
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
