"""Writes a run's report as JSON for programs and as one self-contained page for people: no script, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from skill_contract.evaluation import Comparison
from skill_trainer.gates import allowed_drop
from skill_trainer.report.charts import changes_chart, curve_charts, time_chart
from skill_trainer.report.document import RunReport

_PAGES = Environment(
    loader=PackageLoader("skill_trainer.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(folder: Path, report: RunReport) -> None:
    """Writes `report.json` and `report.html` into an existing folder."""
    (folder / "report.json").write_text(report.dump_json(), encoding="utf-8")
    (folder / "report.html").write_text(report_page(report), encoding="utf-8")


def report_page(report: RunReport) -> str:
    """Returns the page. All text is escaped; the charts, SVG of our own, are put in as they are."""
    rows = _gated(report)
    return _PAGES.get_template("page.html.j2").render(
        report=report,
        verdict=report.evaluation.verdict if report.evaluation else "",
        rows=rows,
        changes=changes_chart([(f"{kind}: {row.suite}", row, threshold) for kind, row, threshold in rows]),
        curves=list(curve_charts(report.series)),
        times=time_chart(report.time_split),
        settings=list(_flattened(report.settings)),
    )


def _gated(report: RunReport) -> list[tuple[str, Comparison, float]]:
    """Returns what was gated, each comparison with its kind and the change that it had to reach."""
    evaluation, gates = report.evaluation, report.gates
    if evaluation is None:
        return []
    rows = [("kept", row, -allowed_drop(row.before, gates.retention)) for row in evaluation.retention]
    if evaluation.new_skill:
        rows.insert(0, ("learned", evaluation.new_skill, gates.new_skill.min_gain))
    if evaluation.in_context_gain:
        rows.append(("teacher", evaluation.in_context_gain, gates.in_context_gain.min_gain))
    return rows


def _flattened(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of nested settings with its dotted place."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flattened(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flattened(inner, f"{place}[{index}]")
    else:
        yield place, value
