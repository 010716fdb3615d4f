"""The command line at a real API server: a plan of what is there now, and a log that a machine can read."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from skill_operator import cli
from skill_operator.api import FINALIZER
from skill_operator.kube import connect
from skill_operator.metrics import Metrics
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.conftest import USER, Operator
from tests.operator.api.place import Kubelet, Place

pytestmark = pytest.mark.api


async def planned(plane: ControlPlane, file: Path, *flags: str) -> raw.Raw:
    """Asks with the operator's rights, which are enough."""
    command = [sys.executable, "-m", "skill_operator.cli", "plan", str(file), "--live", *flags]
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig_for(USER))}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def written(folder: Path, place: Place, name: str, **spec) -> Path:
    document = raw.update(name=name, model={"uri": f"s3://{place.namespace}/llm"}, serving=False, **spec)
    document["metadata"] = {"name": name, "namespace": place.namespace}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def test_update_that_is_written_while_it_is_released_is_released_all_the_same(
    place: Place, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
):
    """What was listed is old by the time of the patch: the operator still works while an uninstall begins."""
    document = raw.update(name="busy", serving=False)
    created = await place.create(
        "skillupdates", {key: document[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    )
    finalizers = {"metadata": {"finalizers": [FINALIZER, "example.com/other"]}}
    held = (await place.patch("skillupdates", "busy", finalizers))["metadata"]
    await place.patch("skillupdates", "busy", {"metadata": {"labels": {"written": "meanwhile"}}})
    kubeconfig = "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # KUBECONFIG, read at its import
    monkeypatch.setattr(kubeconfig, str(plane.kubeconfig_for(USER)))
    async with connect(Metrics()) as kube:
        assert await cli._let_go(kube, held)
        left = (await place.get("skillupdates", "busy"))["metadata"]
        assert (left["uid"], left["finalizers"]) == (created["metadata"]["uid"], ["example.com/other"])
        assert not await cli._let_go(kube, left)
    await place.patch("skillupdates", "busy", {"metadata": {"finalizers": None}})


async def test_plan_of_what_is_there_now(
    place: Place, kubelet: Kubelet, operator: Operator, plane: ControlPlane, tmp_path: Path
):
    kubelet.steps["train"] = []
    await place.update("first", serving=False)
    await place.phase("first", "Training")
    job = await place.until_some("jobs", "sdft.dev/step=train")
    before = await place.get("skillupdates", "first")

    stored = await planned(plane, written(tmp_path, place, "first"))
    assert stored["as"] == "in the cluster, Training"
    assert "actions" not in stored["passes"][-1]
    suspended = await planned(plane, written(tmp_path, place, "first", suspend=True))
    assert "with the file's spec" in suspended["as"]
    assert suspended["passes"][-1]["actions"] == [{"delete": f"Job {job['metadata']['name']}"}]
    new = await planned(plane, written(tmp_path, place, "second"))
    assert new["as"] == "not in the cluster: as if it were created now"
    assert (new["passes"][-1]["phase"], "actions" in new["passes"][-1]) == ("Queued", False)
    assert f"{place.namespace}/first" in new["passes"][-1]["message"]

    assert (await place.get("skillupdates", "first"))["spec"] == before["spec"]
    assert [each["metadata"]["name"] for each in await place.list("skillupdates")] == ["first"]


async def test_context_that_is_not_there_is_told(plane: ControlPlane, place: Place, tmp_path: Path):
    with pytest.raises(AssertionError, match=r"no cluster to talk to: .*absent"):
        await planned(plane, written(tmp_path, place, "first"), "--context=absent")


async def test_log_has_one_line_for_a_change_with_its_fields(
    place: Place, kubelet: Kubelet, operator: Operator, plane: ControlPlane, tmp_path: Path
):
    operator.kill()
    log = tmp_path / "json.log"
    talking = Operator(plane, log, flags=("--log-format=json", "--log-level=INFO"))
    talking.start()
    try:
        await place.update("spoken", serving=False)
        await place.phase("spoken", "Succeeded")
        await place.until("skillupdates", "spoken", lambda u: not u["metadata"].get("finalizers"))
    finally:
        talking.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    changes = [line for line in lines if line.get("namespace") == place.namespace and "phase" in line]
    phases = [line["phase"] for line in changes]
    assert phases[0] == "Pending"
    assert phases[-1] == "Succeeded"
    assert {line["update"] for line in changes} == {"spoken"}
    assert changes[-1]["reason"] == "Promoted"
    assert all(line["severity"] == "info" and line["message"] for line in changes)
    (start,) = [line for line in lines if "configuration" in line]
    assert start["configuration"]["log_format"] == "json"
