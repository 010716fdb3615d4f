"""The soak: two operators at once, lives one after the other, faults at random, and the same invariants at each end.

Only faults after which an update has to end as it would without them; which, when and whom is drawn from a seed (when
exactly a fault meets an update is the machine's affair).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.chaos.faults import FAULTS
from tests.chaos.invariants import violations
from tests.chaos.life import STATIONS, Cell
from tests.chaos.world import World

LIVES_AT_ONCE = 6
_MOST_RUNS = 5
_LEFT_OUT = {
    "none", "two operators at once", "suspended and resumed", "update deleted", "namespace deleted",
    "Deployment restarted by somebody",  # its pods may be held: then it is the target that is unhealthy
}  # fmt: skip
_RARE = {"API server killed and restarted", "controller manager killed", "CRD changed and changed back"}


@dataclass
class Tally:
    """What happened."""

    lives: Counter[str] = field(default_factory=Counter)
    """By the phase of their end."""
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


async def soak(world: World, minutes: float, seed: int, say: Callable[[str], None]) -> Tally:
    """Lets updates live under faults for some minutes, and those that live then come to their end in peace."""
    tally, chance = Tally(), random.Random(seed)
    living: set[Cell] = set()
    end = time.monotonic() + 60 * minutes
    await (await world.operator()).ready()
    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(_disturb(world, living, tally, random.Random(f"{seed}/faults"), end))
        for _ in range(LIVES_AT_ONCE):
            lives = random.Random(chance.random())
            group.create_task(_live(world, living, tally, lives, end, say))
        await disturbing
        await world.revive()
    return tally


async def _live(
    world: World, living: set[Cell], tally: Tally, chance: random.Random, end: float, say: Callable[[str], None]
) -> None:
    while time.monotonic() < end:
        cell = await world.cell(chance.choice(STATIONS))
        name = f"{cell.namespace}, by {cell.station.name}"
        living.add(cell)
        try:
            await cell.approach()
            await cell.arrive()
            await asyncio.sleep(chance.uniform(0, 5))  # held there: time for faults
            await cell.release()
            await cell.end(cell.station.ending)
            tally.problems += [
                f"{name}: {problem}"
                for problem in violations(cell, cell.station.ending, remakes=True, reruns=_MOST_RUNS)
            ]
            tally.lives[cell.phase] += 1
            say(f"{name}: {cell.phase}")
        except (AssertionError, httpx.HTTPError) as error:
            tally.problems.append(f"{name}: {error}")
            say(tally.problems[-1])
        finally:
            living.discard(cell)


async def _disturb(world: World, living: set[Cell], tally: Tally, chance: random.Random, end: float) -> None:
    gentle = [fault for fault in FAULTS if not fault.endings and fault.name not in _LEFT_OUT]
    often = [fault for fault in gentle if fault.name not in _RARE]
    rare = [fault for fault in gentle if fault.name in _RARE]
    while time.monotonic() < end:
        await asyncio.sleep(chance.uniform(0.5, 3))
        fault = chance.choice(rare if chance.random() < 0.05 else often)
        cells = [cell for cell in sorted(living, key=lambda cell: cell.namespace) if cell.uid]
        if not cells:
            continue
        chance.shuffle(world.operators)  # either of the two
        try:
            await fault.strike(world, [chance.choice(cells)], chance)
            tally.faults[fault.name] += 1
            await asyncio.sleep(chance.uniform(0, 3))
            await fault.heal(world, [], chance)
        except (AssertionError, KeyError, httpx.HTTPStatusError):
            continue  # the update is not where this fault can meet it


def report(world: World, tally: Tally, minutes: float, seed: int) -> str:
    """Returns the outcome in Markdown."""
    lives = ", ".join(f"{count} {phase}" for phase, count in sorted(tally.lives.items()))
    jobs = world.proxy.writes["POST", "jobs", 201]
    again = world.proxy.writes["POST", "jobs", 409]
    told, twice = world.proxy.writes["POST", "events", 201], world.proxy.writes["POST", "events", 409]
    statuses = world.proxy.writes["PATCH", "skillupdates/status", 200]
    conflicts = world.proxy.writes["PATCH", "skillupdates/status", 409]
    faults = ", ".join(f"{count} × {name}" for name, count in sorted(tally.faults.items()))
    ends = f"{sum(tally.lives.values())} updates ended ({lives})"
    bad = f"{len(tally.problems)} violations, {world.crashes} tracebacks in the logs"
    return "\n".join([
        f"{minutes:.0f} minutes, seed {seed}, two operators: {ends}; {sum(tally.faults.values())} faults; {bad}.",
        "",
        "| written | accepted | refused, because the other operator (or a lost reply) had been faster |",
        "| --- | --- | --- |",
        f"| Jobs | {jobs} | {again} |",
        f"| Events | {told} | {twice} |",
        f"| statuses | {statuses} | {conflicts} |",
        "",
        f"Faults: {faults}.",
        *(f"- {problem}" for problem in tally.problems),
    ])  # fmt: skip
