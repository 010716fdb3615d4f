"""An update that nothing happens to costs the API server nothing, and whatever happens to it is noticed."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from tests.operator import raw
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, condition

pytestmark = pytest.mark.api
SERIES = ("reconciles", "api_requests")


async def counted(operator: Operator) -> tuple[int, int]:
    """Passes, and requests to the API server, since the operator's start."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{operator.metrics_port}/metrics")).text
    sums = [re.findall(rf"^skill_operator_{name}_total{{.*}} (\S+)$", text, re.MULTILINE) for name in SERIES]
    passes, requests = (round(sum(map(float, values))) for values in sums)
    assert passes
    assert requests
    return passes, requests


async def until_a_pass_asks_nothing(operator: Operator) -> None:
    """Waits through whatever is still to be done until a pass is made in which nothing is asked."""
    async with asyncio.timeout(60):
        passes, requests = await counted(operator)
        while True:
            await asyncio.sleep(0.2)
            now = await counted(operator)
            if now[1] != requests:
                passes, requests = now
            elif now[0] > passes:
                return


async def test_pass_over_what_nothing_happened_to_asks_nothing(place: Place, kubelet: Kubelet, operator: Operator):
    kubelet.steps["train"] = [raw.running()]
    await place.update("runs", serving=False)
    await place.phase("runs", "Training")
    await place.update("waits", serving=False)
    await place.phase("waits", "Queued")
    await until_a_pass_asks_nothing(operator)
    # It has not gone deaf.
    await place.patch("skillupdates", "runs", {"spec": {"suspend": True}})
    await place.phase("runs", "Suspended")
    update = await place.phase("waits", "Training")
    assert not condition(update, "Queued")
