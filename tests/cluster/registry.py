"""The image registry: the one that the cluster brings (Debian's docker-registry), or one that exists already.

Its images stay when the cluster goes, so that gigabytes are pushed once.
"""

import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.controlplane import LOOPBACK
from tests.cluster.processes import Processes

MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
FIRST_PORT = 5000


@dataclass(frozen=True)
class Registry:
    """A registry by its host name and port, as image references name it."""

    host: str

    @property
    def secure(self) -> bool:
        """Whether it must be spoken to by TLS: all but those of this machine, as every container tool has it."""
        return self.host.partition(":")[0] not in ("localhost", LOOPBACK)

    def digest(self, name: str, tag: str) -> str | None:
        """Return the digest of an image's manifest, or None where the registry has no such tag."""
        reply = self._head(f"{name}/manifests/{tag}")
        return reply.get("Docker-Content-Digest") if reply else None

    def answers(self) -> bool:
        """Tell whether it speaks the registry protocol."""
        try:
            return self._head("") is not None
        except OSError:
            return False

    def _head(self, path: str) -> dict[str, str] | None:
        url = f"{'https' if self.secure else 'http'}://{self.host}/v2/{path}"
        request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
        opener = urllib.request.build_opener(*([] if self.secure else [urllib.request.ProxyHandler({})]))
        try:
            with opener.open(request, timeout=10) as reply:
                return dict(reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise


def start(processes: Processes, data: Path) -> Registry:
    """Start a registry on the loopback address with the images that `data` has, and return it.

    The port is 5000, or the next free one, and stays the same for this `data`: image references name it.
    """
    data.mkdir(parents=True, exist_ok=True)
    registry = Registry(f"localhost:{_port(data / 'port')}")
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "cache": {"blobdescriptor": "inmemory"}},
        "http": {"addr": registry.host.replace("localhost", LOOPBACK)},
    }
    file = data / "config.yml"
    file.write_text(json.dumps(config))
    processes.start("registry", ["docker-registry", "serve", file])
    processes.wait("registry", registry.answers, "the start of the registry", 30)
    return registry


def at(data: Path) -> Registry:
    """Return the registry that `start` has started with this `data`."""
    return Registry(f"localhost:{int((data / 'port').read_text())}")


def _port(file: Path) -> int:
    if file.exists():
        return int(file.read_text())
    port = next(port for port in range(FIRST_PORT, FIRST_PORT + 100) if _free(port))
    file.write_text(str(port))
    return port


def _free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True
