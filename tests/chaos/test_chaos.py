"""A small sample of the chaos matrix, on the tests' own control plane, and whether its document has all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.life import STATIONS
from tests.chaos.matrix import plans, read_table, run_all, waves
from tests.chaos.page import part
from tests.chaos.world import World, open_world
from tests.cluster.controlplane import ControlPlane
from tests.operator.api.conftest import prepare

ROOT = Path(__file__).parents[2]
SAMPLE = {
    ("replies lost, requests carried out", "RollingOut"),
    ("status erased by hand", "promote"),
    ("annotation taken back by somebody", "promote"),
    ("update deleted", "Soaking"),
    ("update deleted", "Reverting"),
    ("step's node lost", "Training"),
    ("labels taken from the Jobs", "Checking"),
    ("operator killed (SIGKILL)", "Training"),
    ("operator killed (SIGKILL)", "RollingBack"),
}


@pytest.fixture
async def chaos(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    prepare(control_plane)
    async with open_world(control_plane, tmp_path, f"chaos-{uuid4().hex[:6]}-") as world:
        yield world


@pytest.mark.api
async def test_sample_of_the_matrix_ends_as_it_has_to(chaos: World):
    chosen = [plan for plan in plans() if (plan.fault.name, plan.station.name) in SAMPLE]
    assert len(chosen) == len(SAMPLE)
    results = await run_all(chaos, chosen, seed=17, tell=lambda _: None)
    assert not {str(result.plan): result.problems for result in results if result.problems}
    assert len(results) == len(SAMPLE)
    assert chaos.crashes == 0
    await chaos.clear()


def test_every_fault_and_every_station_is_in_the_matrix_once():
    names = [str(plan) for plan in plans()]
    assert len(names) == len(set(names)) >= 120
    alone, beside = waves(plans())
    assert sum(map(len, alone)) + len(beside) == len(names)
    known = {station.name for station in STATIONS}
    assert all(set(fault.stations) <= known and set(fault.endings) <= known for fault in FAULTS)


def test_document_has_every_cell_and_none_that_failed():
    told = read_table(part(ROOT / "docs/reliability.md", "matrix"))
    assert told == {str(plan): str(plan.ending) for plan in plans()}, "run `make chaos`"
    assert len(told) >= 120
