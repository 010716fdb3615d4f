"""Runs the matrix, or the soak, on a control plane of its own, and writes the outcome into the document."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.matrix import FAILED, Result, Words, plans, read_table, run_all, table, words
from tests.chaos.page import part, write
from tests.chaos.soak import report, soak
from tests.chaos.world import open_world
from tests.cluster.console import say
from tests.cluster.controlplane import ControlPlane
from tests.operator.api.conftest import prepare

_FLAGS = {"kube-controller-manager": {"kube-api-qps": 500, "kube-api-burst": 1000}}
"""Of many cells at once most would wait for the controllers, which by default ask 20 times a second."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=17, help="of everything that is left to chance")
    parser.add_argument("--only", default="", metavar="WORDS", help="only cells whose `fault × phase` has these words")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into this document")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the operators' logs there")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="the soak for so long, not the matrix")
    given = parser.parse_args()
    folder = given.logs or Path(tempfile.mkdtemp(prefix="skillupdate-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"The operators' logs: {folder}")
    return asyncio.run(_soak(given, folder) if given.soak else _matrix(given, folder))


async def _soak(given: argparse.Namespace, folder: Path) -> int:
    with ControlPlane(controllers=True, flags=_FLAGS) as plane:
        prepare(plane)
        async with open_world(plane, folder) as world:
            tally = await soak(world, given.soak, given.seed, say)
            text = report(world, tally, given.soak, given.seed)
            crashes = world.crashes
    say(text)
    if given.write:
        write(given.write, "soak", text)
    return 1 if tally.problems or crashes else 0


async def _matrix(given: argparse.Namespace, folder: Path) -> int:
    chosen = [plan for plan in plans(FAULTS) if given.only.lower() in str(plan).lower()]
    say(f"{len(chosen)} cells, seed {given.seed}")
    began = time.monotonic()
    with ControlPlane(controllers=True, flags=_FLAGS) as plane:
        prepare(plane)
        async with open_world(plane, folder) as world:
            results = await run_all(world, chosen, given.seed, _tell)
            crashes = world.crashes
    failed = [result for result in results if result.problems]
    say(f"{len(results)} cells in {time.monotonic() - began:.0f} s, {len(failed)} failed, {crashes} tracebacks logged")
    if given.write:
        known = read_table(part(given.write, "matrix")) | words(results)  # what did not run now stays as it was
        write(given.write, "matrix", f"{_summary(known, given.seed)}\n\n{table(known)}")
    return 1 if failed or crashes else 0


def _tell(result: Result) -> None:
    word = "FAILED" if result.problems else "ok"
    say(f"{word:7}{result.seconds:6.1f} s  {result.plan}: {result.plan.ending}")
    for problem in result.problems:
        say(f"        {problem}")


def _summary(known: Words, seed: int) -> str:
    failed = sum(word == FAILED for word in known.values())
    return f"{len(known)} cells, seed {seed}: {failed} failed."


if __name__ == "__main__":
    sys.exit(main())
