"""The command line of `kubectl skill`: kubectl's flags, before or after the command, and the commands themselves."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from importlib.metadata import version
from typing import Any

from kubectl_skill import commands
from kubectl_skill.command import Command
from kubectl_skill.errors import ExitCode

DESCRIPTION = "Looks at SkillUpdates and gives them the go-ahead, with the rights of your kubeconfig."
CODES = f"""\
exit codes:
  {ExitCode.DONE}  done
  {ExitCode.NOT_WELL}  done, and what was found is not well: an update that failed or needs a person, unusable data
  {ExitCode.USAGE}  wrong usage
  {ExitCode.REFUSED}  refused by the cluster, or of no sense where the update stands
  {ExitCode.NOT_FOUND}  there is no such update
  {ExitCode.UNAVAILABLE}  cluster, store or a needed package is not there
"""


def all_commands() -> list[Command]:
    """Returns the commands of all modules in `commands`, by name."""
    names = (f"{commands.__name__}.{module.name}" for module in pkgutil.iter_modules(commands.__path__))
    return sorted((importlib.import_module(name).COMMAND for name in names), key=lambda command: command.name)


def parser() -> argparse.ArgumentParser:
    """Returns the parser; parsed options have `run`, the command's function."""
    raw = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        prog="kubectl skill", description=DESCRIPTION, epilog=CODES, formatter_class=raw, parents=[flags()]
    )
    whole.add_argument("--version", action="version", version=f"kubectl-skill {version('skillupdate')}")
    words = whole.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in all_commands():
        examples = "".join(f"  {line}\n" for line in command.examples.strip().splitlines())
        subparser = words.add_parser(
            command.name,
            help=command.help,
            description=f"{command.help}.",
            epilog=f"examples:\n{examples}",
            formatter_class=raw,
            parents=[flags(argparse.SUPPRESS, argparse.SUPPRESS)],
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return whole


def flags(absent: Any = None, off: Any = False) -> argparse.ArgumentParser:
    """Returns kubectl's flags, to be added to the whole and to every command.

    Args:
        absent, off: the defaults; suppressed behind a command, where they would undo what stands before it.
    """
    found = argparse.ArgumentParser(add_help=False)
    group = found.add_argument_group("which cluster, and as whom (as with kubectl)")
    group.add_argument("-n", "--namespace", metavar="NAME", default=absent, help="(default: that of the context)")
    group.add_argument("-A", "--all-namespaces", action="store_true", default=off, help="for list and watch")
    group.add_argument("--kubeconfig", metavar="FILE", default=absent, help="(default: $KUBECONFIG, ~/.kube/config)")
    group.add_argument("--context", metavar="NAME", default=absent, help="of the kubeconfig (default: the current one)")
    group.add_argument("--cluster", metavar="NAME", default=absent, help="of the kubeconfig, for the context's")
    group.add_argument("--user", metavar="NAME", default=absent, help="of the kubeconfig, for the context's")
    group.add_argument("-s", "--server", metavar="URL", default=absent, help="of the API, for the kubeconfig's")
    group.add_argument("--token", metavar="TOKEN", default=absent, help="for the kubeconfig's way to log in")
    group.add_argument("--as", dest="impersonated", metavar="USER", default=absent, help="with this user's rights")
    return found
