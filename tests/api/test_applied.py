"""Every file of the examples is taken as it is, by an API server that has the kinds of all of them and the policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.api.conftest import until
from tests.api.crd import EXAMPLES, ROOT, install
from tests.cluster.binaries import binary, built
from tests.cluster.console import ClusterError, run
from tests.cluster.controlplane import ControlPlane

pytestmark = [pytest.mark.api, pytest.mark.engines]

FILES = sorted(EXAMPLES.rglob("*.yaml"))
NAMESPACES = ("models", "argocd", "flux-system", "skillupdate-system")
CRDS = {
    "kueue": "crd/bases/kueue.x-k8s.io_{clusterqueues,localqueues,resourceflavors,workloadpriorityclasses}.yaml",
    "kserve": "crd/full/serving.kserve.io_{inferenceservices}.yaml",
    "argocd-crds": "crds/{application}-crd.yaml",
    "flux-kustomize": "crd/bases/kustomize.toolkit.fluxcd.io_{kustomizations}.yaml",
    "flux-source": "crd/bases/source.toolkit.fluxcd.io_{gitrepositories}.yaml",
}
LIMITS = {
    "uriPrefixes": ["s3://models", "s3://skills"],
    "images": ["registry.example.com/skillupdate/"],
    "endpoints": ["aws", "http://s3.storage.svc:9000", "http://seaweedfs:8333"],
    "maxNodes": 2,
    "maxGpus": 16,
}
STRANGER = {
    "apiVersion": "sdft.dev/v1alpha1",
    "kind": "SkillUpdate",
    "metadata": {"name": "stranger"},
    "spec": {
        "model": {"uri": "s3://elsewhere/model"},
        "skill": {"name": "any"},
        "data": {"train": "s3://skills/a.jsonl", "heldOut": {"uri": "s3://skills/b.jsonl"}},
    },
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """One of its own: with these kinds in it, the operator of other tests would see another cluster."""
    with ControlPlane() as plane:
        for name in NAMESPACES:
            plane.kubectl("create", "namespace", name)
        install(plane.kubectl)
        plane.kubectl("apply", "--server-side", *(f"--filename={crd}" for crd in _crds()))
        plane.kubectl("apply", "--filename=-", stdin=_policy())
        until("the policy", lambda: "uriPrefixes" in _answer(plane, stdin=yaml.safe_dump(STRANGER)))
        kinds = {crd.partition("/")[2] for crd in plane.kubectl("get", "crd", "--output=name").split()}
        until("all kinds", lambda: kinds <= set(plane.kubectl("api-resources", "--output=name").split()))
        yield plane


def _crds() -> Iterator[Path]:
    for module, pattern in CRDS.items():
        before, names, after = re.split("[{}]", pattern)
        yield from (built(module) / "config" / f"{before}{name}{after}" for name in names.split(","))


def _policy() -> str:
    values = {"admissionPolicy": {"enabled": True, "default": LIMITS}}
    flags = ["--kube-version=1.34.4", "--show-only=templates/admissionpolicy.yaml", "--namespace=skillupdate-system"]
    chart = str(ROOT / "charts/skillupdate")
    return run([binary("helm"), "template", "x", chart, *flags, "--values=-"], stdin=yaml.safe_dump(values))


def _answer(plane: ControlPlane, file: str = "-", stdin: str | None = None) -> str:
    """What the API server says of a file; nothing of it is kept."""
    documents = yaml.safe_load_all(stdin or Path(file).read_text())
    homeless = not any("namespace" in document["metadata"] for document in documents)
    place = ["--namespace=models"] if homeless else []
    try:
        return plane.kubectl("apply", "--server-side", "--dry-run=server", *place, f"--filename={file}", stdin=stdin)
    except ClusterError as refusal:
        return str(refusal)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(EXAMPLES).as_posix())
def test_an_example_is_taken(plane: ControlPlane, file: Path):
    documents = [document for document in yaml.safe_load_all(file.read_text()) if document]
    lines = _answer(plane, str(file)).splitlines()
    assert len(lines) == len(documents), lines
    assert all(line.endswith("serverside-applied (server dry run)") for line in lines), lines


def test_every_folder_is_in_the_table():
    table = (EXAMPLES / "README.md").read_text()
    assert [file.name for file in EXAMPLES.iterdir() if file.suffix != ".md" and f"({file.name}" not in table] == []
