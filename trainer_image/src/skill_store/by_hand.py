"""Commands of `skill-store` by which people look at a repository and tidy it: ls, log, diff, gc."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from skill_store import listing
from skill_store.catalogue import Catalogue
from skill_store.errors import NotFound
from skill_store.layout import Location
from skill_store.retention import GRACE_SECONDS, LEAST, RUN_GRACE_SECONDS, Policy, Removal, Ruling, rehearse, remove

_GC = """
Removes versions that are older than what is kept, uploads that nobody completed, and checkpoints of runs that were
given up. Says what it would do; does it with --delete.

Never removed: the head; the newest N of its lineage; the base; versions trained from the head, which could still be
promoted; what a run that may go on trains from; what --in-use names; whatever was written within --grace-hours. What
serves elsewhere this command cannot know: name it with --in-use, or keep enough versions.
What is removed stays in `skill-store log`, with its scores.
"""
_DIFF = """
OLD and NEW: head, head~1 (the version before it), the name of a version or its beginning, its number, or the beginning
of a digest. Without them: what the head has over the version before it.
"""


class AddCommand(Protocol):
    """Adds a command to the parser and returns its own parser."""

    def __call__(
        self, run: Callable[[argparse.Namespace], int], name: str, text: str, **more: Any
    ) -> argparse.ArgumentParser: ...


def add_commands(command: AddCommand) -> None:
    """Adds the commands of this module."""
    for run, name, text in (
        (_list, "ls", "List the versions that can be fetched, newest first"),
        (_log, "log", "Show who trained what from what, with which scores, as a tree; the head is marked"),
    ):
        parser = command(run, name, text)
        parser.add_argument("repository", metavar="REPOSITORY")
        _add_output(parser)
    comparing = command(_diff, "diff", "Say how two versions differ: lineage, scores, configuration, files")
    comparing.epilog = _DIFF + (comparing.epilog or "")
    comparing.add_argument("repository", metavar="REPOSITORY")
    comparing.add_argument("old", metavar="OLD", nargs="?", default="head~1")
    comparing.add_argument("new", metavar="NEW", nargs="?", default="head")
    _add_output(comparing)
    _add_gc(command(_gc, "gc", "Remove old versions and what nobody finished; without --delete, say what would go"))


def _add_gc(parser: argparse.ArgumentParser) -> None:
    parser.description = _GC
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("repository", metavar="REPOSITORY")
    parser.add_argument("--delete", action="store_true", help="do it; without this nothing is written")
    parser.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="N",
        help=f"versions of the head's lineage, {LEAST} or more (default: all)",
    )
    parser.add_argument(
        *("--in-use", "-u"),
        action="append",
        default=[],
        metavar="VERSION",
        help="stays, whatever its age; may be repeated",
    )
    parser.add_argument(
        "--grace-hours", type=float, default=GRACE_SECONDS / 3600, metavar="H", help="default: %(default)g"
    )
    parser.add_argument(
        "--run-grace-days",
        type=float,
        default=RUN_GRACE_SECONDS / 86400,
        metavar="D",
        help="how long a run may be silent, suspended for instance, before its checkpoints go (default: %(default)g)",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def _say(options: argparse.Namespace, lines: Iterable[str], document: Callable[[], Any]) -> int:
    text = json.dumps(document(), indent=2) if options.output == "json" else "\n".join(lines)
    sys.stdout.write(f"{text}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    catalogue = _catalogue(options.repository)
    return _say(options, listing.table(catalogue), lambda: listing.facts(catalogue))


def _log(options: argparse.Namespace) -> int:
    catalogue = _catalogue(options.repository)
    return _say(options, listing.tree(catalogue), lambda: listing.facts(catalogue))


def _diff(options: argparse.Namespace) -> int:
    catalogue = _catalogue(options.repository)
    found = listing.difference(catalogue, catalogue.find(options.old), catalogue.find(options.new))
    return _say(options, listing.difference_lines(found), lambda: found)


def _catalogue(place: str) -> Catalogue:
    catalogue = Catalogue.read(Location.parse(place).repository)
    if not catalogue.versions:
        raise NotFound(f"{catalogue.uri} has no versions; begin with: skill-store import BASE {catalogue.uri}")
    return catalogue


def _gc(options: argparse.Namespace) -> int:
    uri = Location.parse(options.repository).repository
    catalogue = _catalogue(uri)
    policy = Policy(
        keep=options.keep,
        in_use=frozenset(catalogue.find(name).name for name in options.in_use),
        grace_seconds=options.grace_hours * 3600,
        run_grace_seconds=options.run_grace_days * 86400,
    )
    removal = remove(uri, policy) if options.delete else rehearse(uri, policy)
    return _say(options, _removal_lines(removal, deleted=options.delete), lambda: _removal(removal))


def _removal_lines(removal: Removal, *, deleted: bool) -> Iterable[str]:
    going = removal.removed if deleted else [each for each in removal.rulings if not each.stays]
    for each in removal.rulings:
        if each.stays:
            yield _ruling_line("stays", each)
    for each in removal.spared:
        yield _ruling_line("spared", each)
    for each in going:
        yield _ruling_line("removed" if deleted else "would go", each)
    total = listing.size(sum(each.size for each in going))
    yield f"{len(going)} things, {total}, {'removed' if deleted else 'would go; to remove them add --delete'}"


def _ruling_line(word: str, ruling: Ruling) -> str:
    return f"{word:<8}  {ruling.kind:<11}  {ruling.name:<36}  {listing.size(ruling.size):>9}  {ruling.why}"


def _removal(removal: Removal) -> dict[str, Any]:
    def plain(rulings: Iterable[Ruling]) -> list[dict[str, Any]]:
        return [
            {"kind": each.kind, "name": each.name, "sizeBytes": each.size, "stays": each.stays, "why": each.why}
            for each in rulings
        ]

    return {
        "rulings": plain(removal.rulings),
        "removed": plain(removal.removed),
        "spared": plain(removal.spared),
    }
