"""The SkillUpdate API on a real kube-apiserver: the CRD applied once, a namespace for each test."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.api.crd import install
from tests.cluster.controlplane import ControlPlane

KIND = "dev.sdft.v1alpha1.SkillUpdate"
UPDATES = "/apis/sdft.dev/v1alpha1/namespaces/{}/skillupdates"


def until(what: str, reached: Callable[[], bool], evidence: Callable[[], str] = str, seconds: float = 40) -> None:
    """Waits for something that no watch tells of; fails with the end of the evidence."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"{what} did not come about:\n{evidence()[-3000:]}"
        time.sleep(0.1)


class Api:
    """What a client of the API sees: the server's answer, refused or not (HTTP: hundreds of kubectls would be slow)."""

    def __init__(self, client: httpx.Client, namespace: str, *, dry_run: bool = False) -> None:
        self._client = client
        self._parameters = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        self._path = UPDATES.format(namespace)
        self.namespace = namespace

    def create(self, update: dict[str, Any]) -> httpx.Response:
        return self._client.post(self._path, json=update, params=self._parameters)

    def change(self, name: str, patch: dict[str, Any], *, part: str = "") -> httpx.Response:
        """Sends a merge patch to the object, or with `part` to its subresource."""
        return self._client.patch(
            f"{self._path}/{name}{part and '/' + part}",
            content=json.dumps(patch),
            params=self._parameters,
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def created(self, update: dict[str, Any]) -> dict[str, Any]:
        """Returns the object as the server stored it; the test fails where it was refused."""
        response = self.create(update)
        assert response.status_code == 201, response.text
        return response.json()

    def openapi(self) -> dict[str, Any]:
        """Returns the published schemas by name: what `kubectl explain` reads, some seconds after the CRD."""
        path = "/openapi/v3/apis/sdft.dev/v1alpha1"
        until("the published schema", lambda: KIND in self._client.get(path).text)
        return self._client.get(path).json()["components"]["schemas"]


@pytest.fixture(scope="session")
def crd(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the CRD of this checkout."""
    install(control_plane.kubectl)
    return control_plane


@pytest.fixture(scope="session")
def client(crd: ControlPlane) -> Iterator[httpx.Client]:
    folder = crd.authority.folder
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "user-admin.crt", folder / "user-admin.key")
    with httpx.Client(base_url=crd.endpoints.server, verify=context, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def api(client: httpx.Client) -> Iterator[Api]:
    """A namespace of the test's own."""
    namespace = f"api-{uuid4().hex[:8]}"
    client.post("/api/v1/namespaces", json={"metadata": {"name": namespace}}).raise_for_status()
    yield Api(client, namespace)
    client.delete(f"/api/v1/namespaces/{namespace}").raise_for_status()


@pytest.fixture
def judge(client: httpx.Client) -> Api:
    """The same for dry runs, which leave nothing behind and so need no namespace of their own."""
    return Api(client, "default", dry_run=True)
