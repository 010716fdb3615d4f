"""The operator as a process of its own, with the rights of its chart, against a real API server and controllers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.api.crd import install
from tests.cluster.binaries import binary, built
from tests.cluster.console import run
from tests.cluster.controlplane import ControlPlane, free_port
from tests.cluster.processes import until_served
from tests.operator.api.place import Kubelet, Place, beside

ROOT = Path(__file__).parents[3]
USER = "skill-operator"
OF_ALL = ("servingTargets.inferenceService=true", "servingTargets.adapters={support-llm-adapter}")
"""Values of the chart by which the operator of the tests gets its rights."""


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> ControlPlane:
    for crd in (built("kserve") / "config" / "crd" / "full").glob("*_inferenceservices.yaml"):
        control_plane.kubectl("apply", "--server-side", f"--filename={crd}")
    until_served(control_plane.kubectl, "inferenceservices.serving.kserve.io")
    prepare(control_plane)
    return control_plane


def prepare(plane: ControlPlane, *values: str) -> None:
    """Gives a control plane the CRD of this checkout, and the operator's rights as the chart grants them.

    Several packages of tests share one control plane, so what one of them needs every call grants.

    Args:
        values: further ones of the chart, such as servingTargets.rollout=true.
    """
    install(plane.kubectl)
    plane.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(_rights((*OF_ALL, *values))))


def _rights(values: tuple[str, ...]) -> list[dict]:
    chart = str(ROOT / "charts/skillupdate")
    show = ["--show-only", "templates/rbac.yaml", "--kube-version", "1.34.4"]
    rendered = run([binary("helm"), "template", "x", chart, *show, *(f"--set={value}" for value in values)])
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    for document in documents:
        if "subjects" in document:
            document["subjects"] = [{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}]
    return documents


class Operator:
    """The operator's process, which can be killed and started again."""

    def __init__(
        self,
        plane: ControlPlane,
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        flags: tuple[str, ...] = (),
    ) -> None:
        self._log, self._flags = log, flags
        self.health_port, self.metrics_port = free_port(), free_port()
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig_for(USER)),
            "SKILL_TRAINER_IMAGE": "trainer:1",
            "SKILL_STORE_IMAGE": "store:1",
            "SKILL_METRICS_PORT": str(self.metrics_port),
            "SKILL_HEALTH_PORT": str(self.health_port),
            "SKILL_STATUS_SECONDS": "1",
            "SKILL_LOG_FORMAT": "text",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skill_operator.cli", "run", *self._flags],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=20)

    async def ready(self) -> None:
        """Waits until its watches have begun."""
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{self.health_port}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.1)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


@pytest.fixture(scope="package")  # it must not live on beside other tests of the same API server
def operator_process(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    yield from running_operator(plane, tmp_path_factory)


def running_operator(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Yields an operator that runs, and ends it."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    process = Operator(plane, log)
    process.start()
    yield process
    if process.is_alive:
        process.kill()
    print(log.read_text()[-20_000:])


@pytest.fixture
def operator(operator_process: Operator) -> Operator:
    """The one operator of all tests, alive; a test that kills it may leave it dead."""
    if not operator_process.is_alive:
        operator_process.start()
    return operator_process


@pytest.fixture
async def place(plane: ControlPlane) -> AsyncIterator[Place]:
    """A namespace of the test's own, as the cluster's administrator."""
    folder = plane.authority.folder
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "user-admin.crt", folder / "user-admin.key")
    name = f"op-{uuid4().hex[:8]}"
    async with httpx.AsyncClient(
        base_url=plane.endpoints.server, verify=context, trust_env=False, timeout=30
    ) as client:
        labels = {"pod-security.kubernetes.io/enforce": "baseline"}
        body = {"metadata": {"name": name, "labels": labels}}
        (await client.post("/api/v1/namespaces", json=body)).raise_for_status()
        yield Place(client, name)
        (await client.delete(f"/api/v1/namespaces/{name}")).raise_for_status()


@pytest.fixture
async def kubelet(place: Place) -> AsyncIterator[Kubelet]:
    played = Kubelet(place)
    async with beside(played.run()):
        yield played
