"""Helm installs, upgrades from the version before, rolls back and uninstalls while updates are in flight.

The version before is a frozen one (tests/releases): its chart, its CRD and its operator's code. The API server is this
module's own, as CRDs of two versions come and go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.crd import CRD, ROOT, walk
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.installation import NAME, Installation
from tests.operator.api.place import Kubelet, Place, annotation, at_rest, serves_what_it_is_told, slow_on
from tests.releases import unpack

pytestmark = [pytest.mark.api, pytest.mark.timeout(1200)]

NOW = ROOT / "charts/skillupdate"
QUICKLY = {"extraEnv": [{"name": "SKILL_STATUS_SECONDS", "value": "1"}], "logFormat": "text"}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the version before."""
    folder = tmp_path_factory.mktemp("before")
    unpack(folder)
    return folder


@pytest.fixture
def release(plane: ControlPlane, tmp_path: Path) -> Iterator[Installation]:
    release = Installation(plane, tmp_path)
    yield release
    print(release.log.read_text()[-20_000:])


def fields(plane: ControlPlane) -> set[str]:
    """The fields of the SkillUpdate that the API server has."""
    crd = json.loads(plane.kubectl("get", "crd", "skillupdates.sdft.dev", "--output=json"))
    return fields_of(crd)


def fields_of(crd: raw.Raw) -> set[str]:
    return {path for path, _ in walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])}


async def rolling(place: Place, kubelet: Kubelet) -> raw.Raw:
    """An update in the middle of its rollout: one new pod is there, and it is not ready. Returns that pod."""
    kubelet.serving = slow_on(place.candidate)
    await place.serve()
    await place.update("rolling", serving={"progressDeadlineSeconds": 3600})
    first = await place.first_new_pod()
    await place.until("skillupdates", "rolling", lambda update: "appliedAt" in update["status"].get("rollout", {}))
    return first


async def training(place: Place, kubelet: Kubelet, name: str) -> raw.Raw:
    """An update of a model of its own, in training. Returns its pod."""
    kubelet.steps["train"] = [raw.running()]
    await place.update(name, model={"uri": f"s3://{place.namespace}/{name}"}, serving=False)
    await place.phase(name, "Training")
    return await place.until_some("pods", f"sdft.dev/step=train,sdft.dev/update={name}")


async def jobs(place: Place) -> dict[str, str]:
    """The Jobs of all updates, by uid."""
    return {job["metadata"]["uid"]: job["metadata"]["name"] for job in await place.list("jobs")}


async def test_updates_in_flight_live_through_upgrade_rollback_and_uninstall(
    place: Place, kubelet: Kubelet, release: Installation, before: Path
):
    release.helm("install", NAME, before / "charts/skillupdate", "--create-namespace", **QUICKLY)
    old = fields(release.plane)
    assert old == fields_of_file(before) != fields_of(CRD)
    async with release.operator(before):
        first = await rolling(place, kubelet)
        pod = await training(place, kubelet, "first")
    started = await jobs(place)

    release.helm("upgrade", NAME, NOW, **QUICKLY)
    assert fields(release.plane) == fields_of(CRD), "helm upgrades the CRD"
    async with release.operator(ROOT):
        await kubelet.write(pod["metadata"]["name"], kubelet.said("train"))
        await place.phase("first", "Succeeded")
        assert "phase: Checking" in await release.hooked(place.client, ROOT, "test", "test", NAME)
        pod = await training(place, kubelet, "second")
    assert started.items() <= (await jobs(place)).items(), "what ran has gone on"

    release.helm("rollback", NAME, "1")
    assert fields(release.plane) == old, "a rollback of the release brings back its CRD, too"
    async with release.operator(before):
        await kubelet.write(pod["metadata"]["name"], kubelet.said("train"))
        await place.phase("second", "Succeeded")
    release.helm("upgrade", NAME, NOW, **QUICKLY)

    async with release.operator(ROOT):
        said = await release.hooked(place.client, ROOT, "release-finalizers", "uninstall", NAME)
    assert "1 SkillUpdates released" in said
    left = await place.get("skillupdates", "rolling")
    assert (left["metadata"].get("finalizers"), left["status"]["phase"]) == (None, "RollingOut")
    assert annotation(await place.get("deployments", "support-llm")) == place.candidate, "what serves stays"
    assert fields(release.plane) == fields_of(CRD), "the CRD is kept"
    for kind in ("deployments", "serviceaccounts", "services", "jobs"):
        assert not release.objects(kind), kind
    for kind in ("clusterroles", "clusterrolebindings"):
        assert not release.objects(kind, "--all-namespaces"), kind

    release.helm("install", NAME, NOW, **QUICKLY)
    kubelet.serving = serves_what_it_is_told
    async with release.operator(ROOT):
        await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
        await place.phase("rolling", "Succeeded")
    await place.until("deployments", "support-llm", at_rest)
    assert started.items() <= (await jobs(place)).items()


def fields_of_file(checkout: Path) -> set[str]:
    return fields_of(yaml.safe_load((checkout / "charts/skillupdate/files/skillupdates.sdft.dev.yaml").read_text()))
