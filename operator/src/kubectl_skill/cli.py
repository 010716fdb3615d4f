"""`kubectl-skill`: the entry point. kubectl finds it on the PATH and calls it for `kubectl skill`.

Imports the rest only when it runs, so that a missing package is told in a sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kubectl_skill.errors import ExitCode, PluginError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    try:
        from kubectl_skill.arguments import parser  # noqa: PLC0415
        from kubectl_skill.command import Session  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        print(f"kubectl-skill needs the package {missing.name}: pip install 'skillupdate[kubectl]'", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:  # who types `kubectl skill` wants to know what there is
        parser().print_help(sys.stderr)
        return ExitCode.USAGE
    options = parser().parse_args(words)
    session = Session(options)
    try:
        return int(options.run(options, session))
    except PluginError as error:
        session.note(f"kubectl skill: {error}")
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
