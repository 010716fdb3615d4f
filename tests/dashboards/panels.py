"""A dashboard's JSON as Grafana would read it: panels, their queries, and the values of its variables put in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "charts/skillupdate/files/dashboards"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    ref: str
    expr: str
    legend: str
    format: str


@dataclass(frozen=True)
class Panel:
    """One panel, with all that it is drawn from."""

    dashboard: str
    raw: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.raw["title"])

    @property
    def kind(self) -> str:
        return str(self.raw["type"])

    @property
    def defaults(self) -> dict[str, Any]:
        return dict(self.raw["fieldConfig"]["defaults"])

    @property
    def targets(self) -> list[Target]:
        return [
            Target(each["refId"], each["expr"], each.get("legendFormat", ""), each.get("format", "time_series"))
            for each in self.raw.get("targets", ())
        ]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"


def load(name: str) -> dict[str, Any]:
    """Returns a dashboard."""
    return dict(json.loads(FILES[name].read_text()))


def panels(name: str) -> Iterator[Panel]:
    """Yields the panels of a dashboard that show something: no rows."""
    yield from (Panel(name, each) for each in load(name)["panels"] if each["type"] != "row")


def filled(expr: str, **values: str) -> str:
    """Returns a query with every variable replaced; fails where one has no value."""
    values = {"__rate_interval": "2m", "__interval": "1h", "__range": "3h", **values}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)


def series(expr: str) -> set[str]:
    """Returns the names of all series in a query."""
    return set(re.findall(r"\b(?:skill_\w+|ALERTS)\b", expr))
