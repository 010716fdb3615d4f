"""The plain YAML of charts/plain: it is the chart's, kustomize reads it, and a real API server takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from charts.manifests import NAMESPACE, PLAIN, manifests

from skill_operator.settings import read_settings
from tests.api.crd import ROOT
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.api

BASE = PLAIN.parent


def test_it_is_the_chart_s():
    assert PLAIN.read_text() == manifests(), "run `make manifests`"
    assert "helm" not in PLAIN.read_text().lower()


@pytest.fixture(scope="module")
def applied(crd: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with all of it; other tests go on to need the CRD, which is the same."""
    apply = ("apply", "--server-side", "--force-conflicts", f"--kustomize={BASE}")
    crd.kubectl(*apply)
    yield crd
    mine = "--selector=app.kubernetes.io/instance=skillupdate"
    crd.kubectl("delete", "clusterroles,clusterrolebindings", mine)
    crd.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_real_api_server_has_each_object_as_it_is_written(applied: ControlPlane):
    written = list(yaml.safe_load_all(applied.kubectl("kustomize", str(BASE))))
    assert "CustomResourceDefinition" in {each["kind"] for each in written}
    for each in written:
        where = [f"--namespace={space}"] if (space := each["metadata"].get("namespace")) else []
        stored = json.loads(applied.kubectl("get", each["kind"], each["metadata"]["name"], *where, "--output=json"))
        if "rules" in each and "aggregationRule" not in stored:
            assert stored["rules"] == each["rules"]
        assert stored["metadata"].get("labels", {}).items() >= each["metadata"].get("labels", {}).items()


def test_overlay_of_the_example_says_which_images(applied: ControlPlane):
    text = applied.kubectl("kustomize", str(ROOT / "charts/plain/overlay"))
    (deployment,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment: dict[str, Any] = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = read_settings(environment)
    assert {container["image"], settings.trainer_image, settings.store_image} == {
        f"registry.example.com/skillupdate/{name}:0.1.0" for name in ("operator", "trainer", "store")
    }
    assert environment["SKILL_LOG_FORMAT"] == "json", "what the overlay does not name stays"
    applied.kubectl("apply", "--dry-run=server", "--server-side", "--force-conflicts", "--filename=-", stdin=text)
