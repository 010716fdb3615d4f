"""Where the cells live: a control plane, the proxy, the operators behind it, the kubelets and the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.actors import Kubelets
from tests.chaos.ledger import Ledger
from tests.chaos.life import Cell, Station
from tests.chaos.proxy import Proxy, open_proxy
from tests.cluster.controlplane import ControlPlane
from tests.operator.api.conftest import USER, Operator
from tests.operator.api.place import Place

_PATIENCE_S = 60


class Patient(httpx.AsyncHTTPTransport):
    """The tests' own way to the API server: while that is away, it asks again."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                response = await super().handle_async_request(request)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if response.status_code not in {429, 500, 502, 503, 504} or time.monotonic() > deadline:
                    return response
                await response.aclose()
            await asyncio.sleep(0.2)  # a server that is away tells nobody of its return


@dataclass
class World:
    plane: ControlPlane
    client: httpx.AsyncClient
    proxy: Proxy
    ledger: Ledger
    kubelets: Kubelets
    prefix: str
    folder: Path
    operators: list[Operator] = field(default_factory=list)
    _cells: int = 0
    _started: int = 0

    async def operator(self) -> Operator:
        """Starts one more operator."""
        environment = {"KUBECONFIG": str(self._kubeconfig()), "NO_PROXY": "127.0.0.1"}
        self._started += 1
        operator = Operator(self.plane, self.folder / f"operator-{self._started}.log", environment)
        operator.start()
        self.operators.append(operator)
        return operator

    def _kubeconfig(self) -> Path:
        authority = self.plane.authority
        identity = authority.issue("user-behind-the-proxy", USER)
        return authority.kubeconfig("behind-the-proxy.kubeconfig", self.proxy.server, identity)

    async def cell(self, station: Station) -> Cell:
        """Returns a cell with a namespace of its own."""
        self._cells += 1
        number = self._cells
        name = f"{self.prefix}{number:04d}"
        labels = {"pod-security.kubernetes.io/enforce": "baseline"}
        (
            await self.client.post("/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}})
        ).raise_for_status()
        address = f"127.66.{number // 200}.{number % 200 + 1}"
        return Cell(Place(self.client, name), self.ledger, self.kubelets, station, address)

    async def leave(self, cell: Cell) -> None:
        """Takes a cell's namespace away, without waiting for it."""
        await self.client.delete(f"/api/v1/namespaces/{cell.namespace}")

    async def clear(self) -> None:
        """Takes all cells' namespaces away, without waiting for it."""
        for namespace in self.kubelets.scripts:
            await self.client.delete(f"/api/v1/namespaces/{namespace}")

    async def calm(self) -> None:
        """A control plane and one operator, alive, and nothing between them."""
        while len(self.operators) > 1:
            extra = self.operators.pop()
            if extra.is_alive:
                await asyncio.to_thread(extra.kill)
        if not self.operators:
            await self.operator()
        await self.revive()

    async def revive(self) -> None:
        """Everything alive, nothing between operators and API server."""
        self.proxy.troubles.clear()
        if self.plane.processes.pid("kube-apiserver") is None:
            await asyncio.to_thread(self.plane.start_apiserver)
        if self.plane.processes.pid("kube-controller-manager") is None:
            await asyncio.to_thread(self.plane.start_controllers)
        for operator in self.operators:
            if not operator.is_alive:
                operator.start()

    @property
    def crashes(self) -> int:
        """How many tracebacks the operators have logged."""
        logs = self.folder.glob("operator-*.log")
        return sum(log.read_text(errors="replace").count("Traceback (most recent call last)") for log in logs)


@contextlib.asynccontextmanager
async def open_world(plane: ControlPlane, folder: Path, prefix: str = "chaos-") -> AsyncIterator[World]:
    """Yields a world on a control plane that has the CRD and the operator's rights; its operator runs."""
    pki = plane.authority.folder
    plane.kubeconfig_for(USER)  # writes the operator's certificate
    async with contextlib.AsyncExitStack() as stack:
        identity = _identity(pki, f"user-{USER}")
        proxy = await stack.enter_async_context(open_proxy(plane.endpoints.server, identity))
        transport = Patient(verify=_identity(pki, "user-admin"), limits=httpx.Limits(max_connections=None))
        client = httpx.AsyncClient(base_url=plane.endpoints.server, transport=transport, trust_env=False, timeout=30)
        await stack.enter_async_context(client)
        ledger = Ledger(client, prefix)
        kubelets = Kubelets(ledger)
        stack.push_async_callback(kubelets.close)
        watching = asyncio.create_task(ledger.run())
        world = World(plane, client, proxy, ledger, kubelets, prefix, folder)
        try:
            await world.calm()
            yield world
        finally:
            for operator in world.operators:
                if operator.is_alive:
                    operator.kill()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _identity(pki: Path, pair: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / f"{pair}.crt", pki / f"{pair}.key")
    return context
