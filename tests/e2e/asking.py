"""What a user of the served model sees meanwhile: a client in the cluster that asks its Service all the time."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.console import say
from tests.e2e import client
from tests.e2e.world import World

_NAME = "client"


@dataclass(frozen=True)
class Request:
    sent: float
    """Unix seconds."""
    seconds: float
    error: str
    """Empty: it was answered."""


class Asked:
    """The requests of one client from its first answer on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def requests(self) -> list[Request]:
        lines = self._world.kubectl("logs", _NAME).splitlines()
        requests = sorted((Request(**json.loads(line)) for line in lines), key=lambda request: request.sent)
        return list(itertools.dropwhile(lambda request: request.error, requests))

    def errors(self) -> list[Request]:
        return [request for request in self.requests() if request.error]

    def __str__(self) -> str:
        requests = self.requests()
        answered = sorted(request.sent + request.seconds for request in requests if not request.error)
        gap = max((later - earlier for earlier, later in itertools.pairwise(answered)), default=0)
        failed = len(requests) - len(answered)
        return f"A client made {len(requests)} requests, {failed} failed, at most {gap:.1f} s without an answer."


@contextlib.contextmanager
def asking(world: World, service: str, model: str = "/weights") -> Iterator[Asked]:
    """A client asks a Service as long as the context lasts; it has had its first answer when this begins."""
    world.apply(_pod(world, service, model))
    try:
        world.wait_for_words(_NAME, '"error": ""')
        asked = Asked(world)
        yield asked
        say(str(asked))
    finally:
        world.kubectl("delete", "pod", _NAME, "--grace-period=0", "--force")


def _pod(world: World, service: str, model: str) -> dict[str, object]:
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "client",
        "image": world.images["store"],
        "command": ["python", "-c", Path(client.__file__).read_text()],
        "env": [{"name": "URL", "value": f"http://{service}"}, {"name": "MODEL", "value": model}],
        "securityContext": security,
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _NAME}, "spec": spec}
