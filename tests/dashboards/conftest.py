"""A real Prometheus that remembers three hours of a fleet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.prometheus import Prometheus, prometheus, promtool
from tests.dashboards.history import SECONDS, STARTED, history
from tests.dashboards.panels import filled


@dataclass(frozen=True)
class Past:
    """Questions about the fleet's three hours, with the dashboards' variables put in."""

    server: Prometheus
    end: float

    def curves(
        self, expr: str, chosen: tuple[str, str] = STARTED, *, seconds: float = SECONDS, step: float = 30
    ) -> list[dict[str, Any]]:
        """Returns the series of a query over the last of that time.

        Args:
            chosen: namespace and name of the update.
        """
        query = filled(expr, namespace=chosen[0], update=chosen[1])
        return self.server.curves(query, self.end - seconds, self.end, step)

    def values(self, expr: str, chosen: tuple[str, str] = STARTED) -> list[dict[str, Any]]:
        """Returns the samples of a query at the end of that time."""
        return self.server.query(filled(expr, namespace=chosen[0], update=chosen[1]), self.end)


@contextlib.contextmanager
def remembered(folder: Path, every: int = 30) -> Iterator[Past]:
    """Runs a Prometheus with the fleet's history, scraped every so many seconds."""
    end = time.time()
    (folder / "history").write_text(history(end, every))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "history", folder / "data")
    # A file has no marks of where a series ended, as a scrape leaves them: it ends with its last sample.
    with prometheus(folder, extra=(f"--query.lookback-delta={every + 1}s",)) as server:
        yield Past(server, end)


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with remembered(tmp_path_factory.mktemp("dashboards")) as past:
        yield past
