"""The CRD as plain data, the ways to walk through its schema, and how it is brought to a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.processes import until_served

ROOT = Path(__file__).parents[2]
CRD_FILE = ROOT / "crds/skillupdates.sdft.dev.yaml"
EXAMPLES = ROOT / "docs/examples"

CRD: dict[str, Any] = yaml.safe_load(CRD_FILE.read_text())
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = SCHEMA["properties"]["spec"]
STATUS: dict[str, Any] = SCHEMA["properties"]["status"]


def install(kubectl: Callable[..., str]) -> None:
    """Applies the CRD of this checkout and waits until its kind is served."""
    kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD_FILE))
    until_served(kubectl, "skillupdates.sdft.dev")


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every property below a schema with its dotted path; a list's items are written `path[]`."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, child
        yield from walk(child, here)
        yield from walk(child.get("items", {}), f"{here}[]")


def leaves(schema: dict[str, Any]) -> Iterator[str]:
    """Yields the paths of the properties that a user gives a value: lists and maps whole."""
    for path, child in walk(schema):
        if "[]" not in path and not child.get("properties"):
            yield path


def update_files() -> list[Path]:
    """Returns every file of the examples that holds a SkillUpdate."""
    return [path for path in sorted(EXAMPLES.rglob("*.yaml")) if "\nkind: SkillUpdate" in path.read_text()]


def updates_in(path: Path) -> list[dict[str, Any]]:
    """Returns the SkillUpdates of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "SkillUpdate"]


def example(name: str) -> dict[str, Any]:
    """Returns the one SkillUpdate of an example, to be changed at will."""
    (update,) = updates_in(EXAMPLES / f"{name}.yaml")
    return update


REMOVED = object()


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Sets a value at a dotted path, making the objects on the way, or takes it away where it is REMOVED.

    `name[]` is the first item of a list.
    """
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name.removesuffix("[]")][0] if name.endswith("[]") else place.setdefault(name, {})
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return document


def get(document: dict[str, Any], path: str) -> Any:
    """Returns the value at a dotted path."""
    place: Any = document
    for name in path.split("."):
        place = place[name]
    return place
