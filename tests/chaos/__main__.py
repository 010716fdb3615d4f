"""Runs the matrix, or the soak, on a control plane of its own, and writes the outcome into the document."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.matrix import Result, plans, run_all, table
from tests.chaos.world import open_world
from tests.cluster.console import say
from tests.cluster.controlplane import ControlPlane
from tests.operator.api.conftest import prepare


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=17, help="of everything that is left to chance")
    parser.add_argument("--only", default="", metavar="WORDS", help="only cells whose `fault × phase` has these words")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into this document")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the operators' logs there")
    return asyncio.run(_matrix(parser.parse_args()))


async def _matrix(given: argparse.Namespace) -> int:
    chosen = [plan for plan in plans(FAULTS) if given.only.lower() in str(plan).lower()]
    folder = given.logs or Path(tempfile.mkdtemp(prefix="skillupdate-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{len(chosen)} cells, seed {given.seed}; the operators' logs: {folder}")
    began = time.monotonic()
    with ControlPlane(controllers=True) as plane:
        prepare(plane)
        async with open_world(plane, folder) as world:
            results = await run_all(world, chosen, given.seed, _tell)
            crashes = world.crashes
    failed = [result for result in results if result.problems]
    say(f"{len(results)} cells in {time.monotonic() - began:.0f} s, {len(failed)} failed, {crashes} tracebacks logged")
    if given.write:
        write(given.write, "matrix", f"{_summary(results, crashes, given.seed)}\n\n{table(results)}")
    return 1 if failed or crashes else 0


def _tell(result: Result) -> None:
    word = "FAILED" if result.problems else "ok"
    say(f"{word:7}{result.seconds:6.1f} s  {result.plan}: {result.plan.ending}")
    for problem in result.problems:
        say(f"        {problem}")


def _summary(results: list[Result], crashes: int, seed: int) -> str:
    failed = sum(bool(result.problems) for result in results)
    return f"{len(results)} cells, seed {seed}: {failed} failed, {crashes} tracebacks in the operators' logs."


def write(page: Path, part: str, text: str) -> None:
    """Replaces what stands between a document's markers."""
    before = page.read_text()
    pattern = rf"(<!-- {part}:begin -->\n).*?(<!-- {part}:end -->)"
    after, count = re.subn(pattern, lambda match: f"{match[1]}{text}\n{match[2]}", before, flags=re.DOTALL)
    assert count == 1, f"{page} has no place for {part}"
    page.write_text(after)


if __name__ == "__main__":
    sys.exit(main())
