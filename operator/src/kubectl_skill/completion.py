"""`kubectl_complete-skill`: what kubectl's shell completion asks on <TAB> (kubectl, "Plugins: completion").

It gets the words behind `kubectl skill`, the last of them unfinished, prints what fits, a line each, and last how the
shell is to treat them. Whatever goes wrong, the shell gets nothing and says nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from kubectl_skill.arguments import flags, parser
from kubectl_skill.command import Session
from kubectl_skill.errors import PluginError

NO_FILES = 4
"""Source: spf13/cobra, ShellCompDirectiveNoFileComp."""
FILES = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the completions; always returns 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    found = [] if _takes_file(words) else list(completions(words))
    sys.stdout.write("".join(f"{each}\n" for each in [*found, f":{FILES if _takes_file(words) else NO_FILES}"]))
    return 0


def _takes_file(words: Sequence[str]) -> bool:
    """Returns whether the last word is the value of a flag that takes a file."""
    if len(words) < 2:
        return False
    whole = parser()
    parsers = [whole, *(command for word, command in _commands(whole).items() if word in words)]
    actions = (action for each in parsers for action in _actions(each) if words[-2] in action.option_strings)
    return any("FILE" in str(action.metavar) for action in actions)


def completions(words: Sequence[str]) -> Iterator[str]:
    """Yields what could stand in the last word's place."""
    whole = parser()
    *before, unfinished = words or [""]
    commands = _commands(whole)
    chosen = next((commands[word] for word in before if word in commands), None)
    if unfinished.startswith("-"):
        yield from _fitting(_flags(chosen or whole), unfinished)
    elif chosen is None:
        yield from _fitting(commands, unfinished)
    elif choices := _choices(chosen, before[-1]):
        yield from _fitting(choices, unfinished)
    elif any(action.dest == "name" for action in _actions(chosen)) and chosen.prog.split()[-1] != "new":
        yield from _fitting(_names(before), unfinished)


def _fitting(words: Sequence[str] | dict[str, argparse.ArgumentParser], unfinished: str) -> list[str]:
    return [word for word in words if word.startswith(unfinished)]


def _commands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(action for action in _actions(whole) if action.dest == "command")
    assert action.choices is not None
    return dict(action.choices)


def _flags(chosen: argparse.ArgumentParser) -> list[str]:
    return [flag for action in _actions(chosen) for flag in action.option_strings if flag.startswith("--")]


def _choices(chosen: argparse.ArgumentParser, flag: str) -> list[str]:
    fitting = (action for action in _actions(chosen) if flag in action.option_strings)
    return [str(choice) for action in fitting for choice in action.choices or ()]


def _actions(chosen: argparse.ArgumentParser) -> list[argparse.Action]:
    return chosen._actions  # noqa: SLF001 - argparse has no other way to ask what it was told


def _names(before: Sequence[str]) -> list[str]:
    options, _ = flags().parse_known_args(list(before))
    options.all_namespaces = False
    try:
        found = Session(options).cluster.updates()
    except PluginError:
        return []
    return [body["metadata"]["name"] for body in found]


if __name__ == "__main__":
    sys.exit(main())
