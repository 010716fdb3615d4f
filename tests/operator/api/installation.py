"""A Helm release on a real API server, whose Deployment and hook are run here: there is no node.

What runs is what the objects say: their environment, with the token of their ServiceAccount and no other right.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import yaml

from tests.cluster.binaries import binary
from tests.cluster.console import run
from tests.cluster.controlplane import ControlPlane, free_port
from tests.operator import raw
from tests.operator.api.place import Place

NAME, NAMESPACE = "skillupdate", "skillupdate-system"


class Installation:
    """The release, and the processes of its pods."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.log = folder / "operator.log"

    def helm(self, *args: str | Path, **values: object) -> str:
        """Runs a helm command on the release, with `values` where it takes some."""
        where = [f"--namespace={NAMESPACE}", f"--kubeconfig={self.plane.kubeconfig}"]
        given = ["--values=-"] if values else []
        return run([binary("helm"), *args, *where, *given], stdin=yaml.safe_dump(values) if values else None)

    def object(self, kind: str) -> raw.Raw:
        """Returns the one object of a kind of the release, as the API server has it."""
        (found,) = self.objects(kind)
        return found

    def objects(self, kind: str, *flags: str) -> list[raw.Raw]:
        """Returns the release's objects of a kind in its namespace, or elsewhere by `flags`."""
        selector = f"--selector=app.kubernetes.io/instance={NAME}"
        where = flags or (f"--namespace={NAMESPACE}",)
        return list(json.loads(self.plane.kubectl("get", kind, selector, *where, "--output=json"))["items"])

    @contextlib.asynccontextmanager
    async def operator(self, source: Path) -> AsyncIterator[None]:
        """Runs the operator of a checkout as the Deployment says, from its readiness to the end of the block."""
        spec = self.object("deployments")["spec"]["template"]["spec"]
        health = free_port()
        ports = {"SKILL_HEALTH_PORT": str(health), "SKILL_METRICS_PORT": str(free_port())}
        with self.log.open("ab") as log, self._started(spec, source, ports, log) as process:
            await self._ready(process, f"http://127.0.0.1:{health}/readyz")
            yield

    @contextlib.contextmanager
    def _started(self, spec: raw.Raw, source: Path, more: dict[str, str], log: object) -> Iterator[subprocess.Popen]:
        command, environment = self._container(spec, source)
        process = subprocess.Popen(command, env=environment | more, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)

    async def _ready(self, process: subprocess.Popen, url: str) -> None:
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert process.poll() is None, self.log.read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(url)).status_code == 200:
                        return
                await asyncio.sleep(0.1)

    def _container(self, spec: raw.Raw, source: Path) -> tuple[list[str], dict[str, str]]:
        """Returns the command line and the environment of a pod's one container, for a checkout's code."""
        (container,) = spec["containers"]
        account = spec["serviceAccountName"]
        token = self.plane.kubectl("create", "token", account, f"--namespace={NAMESPACE}").strip()
        environment = {
            **os.environ,
            **{variable["name"]: variable.get("value", "") for variable in container["env"]},
            "KUBECONFIG": str(self._kubeconfig(token)),
            "PYTHONPATH": os.pathsep.join([str(source / "operator/src"), str(source / "trainer_image/src")]),
        }
        return [sys.executable, "-m", "skill_operator.cli", *container["args"]], environment

    def _kubeconfig(self, token: str) -> Path:
        server, authority = self.plane.endpoints.server, self.plane.authority.folder / "ca.crt"
        path = self.folder / f"{time.monotonic_ns()}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(authority)}}],
            "users": [{"name": "pod", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "pod"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(document))
        return path

    async def hooked(self, client: httpx.AsyncClient, source: Path, component: str, *helm: str) -> str:
        """Runs a helm command that waits for a hook, and the hook's pod meanwhile. Returns what that said."""
        home = Place(client, NAMESPACE)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(self.helm, *helm))
            pod = await home.until_some("pods", f"app.kubernetes.io/component={component}")
            command, environment = self._container(pod["spec"], source)
            said = await asyncio.to_thread(run, self._mounted(pod, command), env=environment)
            await home.patch("pods", pod["metadata"]["name"], {"status": raw.ended(0, at=time.time())}, "status")
        return said

    def _mounted(self, pod: raw.Raw, command: list[str]) -> list[str]:
        """Puts the annotations that a pod mounts into files, and those into the command line, where it names them."""
        paths = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        for volume in (each for each in pod["spec"]["volumes"] if "downwardAPI" in each):
            for item in volume["downwardAPI"]["items"]:
                annotation = item["fieldRef"]["fieldPath"].split("'")[1]
                (self.folder / item["path"]).write_text(pod["metadata"]["annotations"][annotation])
            command = [word.replace(paths[volume["name"]], str(self.folder)) for word in command]
        return command
