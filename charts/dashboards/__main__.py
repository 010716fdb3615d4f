"""Writes the dashboards into the chart: `make dashboards`. A test holds the files against this source."""

from __future__ import annotations

from pathlib import Path

from charts.dashboards.overview import overview
from charts.dashboards.update import update

FOLDER = Path(__file__).parents[1] / "skillupdate/files/dashboards"


def files() -> dict[Path, str]:
    """Returns what each file of the chart's dashboards must hold."""
    return {FOLDER / "overview.json": overview(), FOLDER / "update.json": update()}


def main() -> None:
    """Writes the files."""
    FOLDER.mkdir(exist_ok=True)
    for path, content in files().items():
        path.write_text(content)


if __name__ == "__main__":
    main()
