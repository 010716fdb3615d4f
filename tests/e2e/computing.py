"""Pods of tests/e2e/live_engine.py: its sources by a ConfigMap, in the trainer's image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.world import World
from tests.store import live_engine as addresses

Raw = dict[str, Any]
_SOURCES = {
    "engine": ("tests/e2e/live_engine.py", Path(__file__).with_name("live_engine.py")),
    "addresses": ("tests/store/live_engine.py", Path(addresses.__file__)),
}


def config_map(name: str, data: dict[str, str]) -> Raw:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} | ({"data": data} if data else {})


def mount(name: str, *, read_only: bool = True) -> Raw:
    return {"name": name, "mountPath": f"/{name}"} | ({"readOnly": True} if read_only else {})


def sources() -> Raw:
    """The ConfigMap that the pods mount."""
    return config_map("engine", {key: source.read_text() for key, (_, source) in _SOURCES.items()})


def compute(world: World, pod: Raw, model: str, *mounts: Raw, env: Sequence[Raw] = ()) -> None:
    """Makes the engine of the demo's pod one that computes, and whose weights are called `model`."""
    (engine,) = pod["containers"]
    own = ({"name": "PYTHONPATH", "value": "/engine"}, {"name": "MODEL", "value": model})
    engine |= {
        "image": world.images["trainer"],
        "command": ["python", "-m", "tests.e2e.live_engine"],
        "env": [*engine["env"], *own, *env],
        "volumeMounts": [*engine["volumeMounts"], mount("engine"), *mounts],
    }
    items = [{"key": key, "path": path} for key, (path, _) in _SOURCES.items()]
    pod["volumes"].append({"name": "engine", "configMap": {"name": "engine", "items": items}})
