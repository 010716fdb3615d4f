"""Finds a report that was stored earlier and makes its page again: by a newer program, or where only JSON was kept."""

from __future__ import annotations

from pathlib import Path

from skill_contract.model import ContractError
from skill_trainer.report.document import RunReport
from skill_trainer.report.writing import report_page

PLACES = ("report.json", ".skill/report.json")
"""Relative to the folder of a run, and to that of a version."""


def stored_page(place: Path) -> str:
    """Returns the page of the report in a version's folder, in a run's folder, or of a `report.json`.

    Raises:
        ContractError: where there is no report, or one that this program cannot read.
    """
    candidates = [place] if place.is_file() else [place / name for name in PLACES]
    path = next((each for each in candidates if each.is_file()), None)
    if path is None:
        raise ContractError(
            f"{place}: has no report.json: give the folder of a version (repository/versions/…) or of a run "
            "(repository/runs/…)"
        )
    try:
        return report_page(RunReport.parse_json(path.read_bytes()))
    except ContractError as error:
        raise ContractError(f"{path}: is no report that this program can read: {error}") from error
