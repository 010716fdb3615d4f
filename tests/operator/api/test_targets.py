"""Rollouts of a StatefulSet by its own controller, and of an InferenceService whose own is played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.operator.api.kserve import KServe
from tests.operator.api.place import Kubelet, Place, beside, condition
from tests.operator.api.stories import Stories
from tests.operator.api.targets import Served, inference_service, leader_worker_set, stateful_set

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]


@pytest.fixture(autouse=True)
async def kserve(place: Place) -> AsyncIterator[None]:
    async with beside(KServe(place).run()):
        yield


@pytest.fixture(params=[stateful_set, inference_service], ids=lambda make: make.__name__)
def served(request: pytest.FixtureRequest) -> Served:
    return request.param()


class TestEveryKind(Stories):
    """The three stories, with each of these kinds."""


async def test_kind_that_is_not_installed_is_said_with_the_way_to_it(place: Place, kubelet: Kubelet):
    await place.update("early", serving={"targetRef": leader_worker_set().reference})
    update = await place.until("skillupdates", "early", lambda u: condition(u, "Stalled") if "status" in u else None)
    assert condition(update, "Stalled")["reason"] == "TargetOutOfReach"
    assert "https://lws.sigs.k8s.io" in condition(update, "Stalled")["message"]
