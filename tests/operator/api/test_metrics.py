"""A real Prometheus scrapes the operator's process while it works: it sees what happens, and no rule complains."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.alerts.prometheus import Prometheus, prometheus
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place

pytestmark = [pytest.mark.api, pytest.mark.alerts]


async def test_operator_at_work_is_seen_and_raises_no_alert(
    place: Place, kubelet: Kubelet, operator: Operator, tmp_path: Path
):
    kubelet.steps["train"] = []
    with prometheus(tmp_path, operator.metrics_port) as server:
        await place.update("seen", serving=False)
        await place.phase("seen", "Training")
        progress = f'skill_operator_update_progress_timestamp_seconds{{namespace="{place.namespace}",name="seen"}}'
        (sample,) = await asyncio.to_thread(
            server.shown, f'{progress} and on () skill_operator_updates{{phase="Training"}} > 0'
        )
        assert sample["metric"]["namespace"] == place.namespace
        await asyncio.to_thread(server.shown, 'rate(skill_operator_reconciles_total{result="ok"}[10s]) > 0')
        await kubelet.finish("train")
        await place.phase("seen", "Succeeded")
        await asyncio.to_thread(server.shown, f"absent({progress})")
        assert complaints(server, place) == []


def complaints(server: Prometheus, place: Place) -> list[str]:
    """Alerts of the operator, or of this test's updates: others may lie about stalled, as they were left."""
    labels = [alert["labels"] for alert in server.firing().values()]
    return [each["alertname"] for each in labels if each.get("namespace", place.namespace) == place.namespace]
