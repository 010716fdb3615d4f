"""The matrix: every fault at every station where it can happen, in waves, and its table.

A fault that meets every update at once (`shared`) strikes all its cells together, when each is at its own station.
The others are waves of one cell, many at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.invariants import violations
from tests.chaos.life import STATIONS, Cell, Ending, Station
from tests.chaos.proxy import Trouble
from tests.chaos.world import World

AT_ONCE = 24
"""Waves of one cell that run together; more only wait for each other on two cores."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One cell of the matrix."""

    fault: Fault
    station: Station

    @property
    def ending(self) -> Ending:
        return self.fault.endings.get(self.station.name, self.station.ending)

    def __str__(self) -> str:
        return f"{self.fault.name} × {self.station.name}"


@dataclass
class Result:
    plan: Plan
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def plans(faults: Iterable[Fault] = FAULTS) -> list[Plan]:
    """Returns all cells, by fault and station."""
    return [
        Plan(fault, station)
        for fault in faults
        for station in STATIONS
        if not fault.stations or station.name in fault.stations
    ]


def waves(chosen: Sequence[Plan]) -> tuple[list[list[Plan]], list[list[Plan]]]:
    """Returns what has to run alone, and what may run beside others."""
    shared: dict[str, list[Plan]] = {}
    single: list[list[Plan]] = []
    for plan in chosen:
        if plan.fault.shared:
            shared.setdefault(plan.fault.name, []).append(plan)
        else:
            single.append([plan])
    return list(shared.values()), single


async def run_all(world: World, chosen: Sequence[Plan], seed: int, tell: Callable[[Result], None]) -> list[Result]:
    """Runs these cells and tells of each as it ends."""
    alone, beside = waves(chosen)
    results: list[Result] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(wave: list[Plan]) -> None:
        async with room:
            for result in await run_wave(world, wave, seed):
                results.append(result)
                tell(result)

    for wave in alone:
        await one(wave)
        await world.calm()
    async with asyncio.TaskGroup() as group:
        for wave in beside:
            group.create_task(one(wave))
    return results


async def run_wave(world: World, wave: Sequence[Plan], seed: int) -> list[Result]:
    """Brings each update to its station, strikes, lets go, heals, and looks at how each ended."""
    began = time.monotonic()
    fault = wave[0].fault
    results = {plan: Result(plan) for plan in wave}
    cells = {plan: await world.cell(plan.station) for plan in wave}

    async def each(step: Callable[[Plan], Awaitable[None]]) -> None:
        async def guarded(plan: Plan) -> None:
            try:
                await step(plan)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's result
                results[plan].problems.append(f"{type(error).__name__}: {error}")
                results[plan].seconds = time.monotonic() - began

        await asyncio.gather(*(guarded(plan) for plan in wave if not results[plan].problems))

    def standing() -> list[Cell]:
        return [cells[plan] for plan in wave if not results[plan].problems]

    async def strike(plan: Plan) -> None:
        assert plan.station.there(cells[plan]), f"{plan.station.name} was over before the fault: {cells[plan]}"
        await fault.strike(world, [cells[plan]], _chance(seed, plan))

    async def finish(plan: Plan) -> None:
        await _finish(world, plan, cells[plan])
        results[plan].problems += _look(world, plan, cells[plan])
        results[plan].seconds = time.monotonic() - began

    await each(lambda plan: cells[plan].approach())
    await each(lambda plan: cells[plan].arrive())
    if fault.shared:
        await each(lambda plan: _is_there(plan, cells[plan]))
        await fault.strike(world, standing(), _chance(seed, wave[0]))
    else:
        await each(strike)
    await each(lambda plan: cells[plan].release())
    await fault.heal(world, standing(), _chance(seed, wave[0]))
    await each(finish)
    return list(results.values())


async def _is_there(plan: Plan, cell: Cell) -> None:
    assert plan.station.there(cell), f"{plan.station.name} was over before the fault: {cell}"


async def _finish(world: World, plan: Plan, cell: Cell) -> None:
    await cell.end(plan.ending)
    if plan.ending.phase == "gone" and plan.ending.served != "gone":
        await cell.until(lambda: not cell.jobs(), "the end of its Jobs")


def _look(world: World, plan: Plan, cell: Cell) -> list[str]:
    found = violations(cell, plan.ending, remakes=plan.fault.remakes, reruns=plan.fault.reruns)
    trouble: Trouble | None = world.proxy.troubles.pop(cell.namespace, None)
    if trouble and not trouble.done:
        found.append("the fault met no request")
    return found


def _chance(seed: int, plan: Plan) -> random.Random:
    return random.Random(f"{seed}/{plan}")


Words = dict[str, str]
"""The outcome of each cell, by `fault × station`."""
FAILED = "**FAILED**"


def words(results: Sequence[Result]) -> Words:
    """Returns how each cell ended, in words."""
    return {str(result.plan): FAILED if result.problems else str(result.plan.ending) for result in results}


def table(known: Words) -> str:
    """Returns the outcomes as a Markdown table: faults down, stations across; empty where a fault cannot happen."""
    names = [station.name for station in STATIONS]
    rows = [["fault", *names], ["---"] * (len(names) + 1)]
    rows += [[fault.name, *(known.get(f"{fault.name} × {name}", "") for name in names)] for fault in FAULTS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_table(text: str) -> Words:
    """Returns the outcomes in a table that `table` has made; none where there is no table."""
    rows = [[word.strip() for word in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("|")]
    if not rows:
        return {}
    names = rows[0][1:]
    return {f"{row[0]} × {name}": word for row in rows[2:] for name, word in zip(names, row[1:], strict=True) if word}
