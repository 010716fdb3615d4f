"""Writes a run's report as JSON for programs and as one self-contained page for people: no script, no network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from skill_contract.evaluation import Verdict
from skill_trainer.report.charts import MOST_POINTS, MOST_ROWS, NARROW, WIDE, curves, scores_chart, time_chart
from skill_trainer.report.document import RunReport, SideBySide
from skill_trainer.report.verdict import QUESTIONS, Gate, gates, headline

REPORTS = ("report.json", "report.html")
"""For programs and for people: in the run's folder, and in `.skill/` of the version that came of it."""
PREVIEW, FULL = 400, 1200
"""Characters of a text that are seen at once, and at most; report.json has them all."""
PREVIEW_LINES = 8
OPEN_ANSWERS = 6
KEPT_CARDS = 4
"""Passed retention suites that get a card; where there are more, all of them share a table."""

_TRAINED = {"lost": "lost", "wrong": "still wrong", "learned": "learned", "kept": "kept"}
_SHOWN = {"lost": "made wrong", "wrong": "wrong anyway", "learned": "helped", "kept": "right anyway"}
"""The same four where a demonstration in context made the difference."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as a page shows it."""

    preview: str
    full: str
    left: int
    """Characters that are only in report.json."""


def cut(text: str) -> Cut:
    """Returns the beginnings of a text: its preview is the text itself where that is short."""
    preview = "\n".join(text.split("\n", PREVIEW_LINES)[:PREVIEW_LINES])[:PREVIEW]
    return Cut(preview, text[:FULL], max(0, len(text) - FULL))


def marked(text: str) -> Markup:
    """Returns the text, escaped, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just there


_PAGES = Environment(
    loader=PackageLoader("skill_trainer.report", "page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters["cut"] = cut
_PAGES.filters["marked"] = marked
_PAGES.filters["signed"] = lambda change: f"{change:+.2f}".replace("-", "−")


def write_report(folder: Path, report: RunReport) -> None:
    """Writes `report.json` and `report.html` into an existing folder."""
    for name, text in zip(REPORTS, (report.dump_json(), report_page(report)), strict=True):
        (folder / name).write_text(text, encoding="utf-8")


def report_page(report: RunReport) -> str:
    """Returns the page. All text is escaped; the charts, SVG of our own, are put in as they are."""
    found = gates(report)
    answers = [(_kind(row), row) for row in report.answers]
    counts = Counter(kind for kind, _ in answers)
    is_trained = bool(report.series) or not found or any(gate.kind != "teacher" for gate in found)
    return _PAGES.get_template("page.html.j2").render(
        report=report,
        headline=headline(report),
        gates=found,
        **dict(zip(("carded", "tabled"), _split(found), strict=True)),
        questions=QUESTIONS,
        tones={Verdict.PASSED: "good", Verdict.FAILED: "bad", Verdict.INCONCLUSIVE: "unsure"},
        scores_wide=scores_chart(found, WIDE) if found else "",
        scores_narrow=scores_chart(found, NARROW) if found else "",
        most_rows=MOST_ROWS,
        most_points=MOST_POINTS,
        curves=list(curves(report)),
        times={name: time_chart(report.time_split, width) for name, width in (("wide", WIDE), ("narrow", NARROW))}
        if report.time_split
        else None,
        step_seconds=sum(sum(point.seconds.values()) for point in report.series) / max(1, len(report.series)),
        answers=answers,
        is_trained=is_trained,
        asked=max(len(answers), sum(gate.row.n for gate in found if is_trained == (gate.kind != "teacher"))),
        open=OPEN_ANSWERS,
        kinds={kind: counts[kind] for kind in _TRAINED},
        words=_TRAINED if is_trained else _SHOWN,
        columns=("before", "after") if is_trained else ("without the demonstration", "with it"),
        method=_method_in_short(report),
        settings=list(_flattened(report.settings)),
    )


def _split(found: Sequence[Gate]) -> tuple[list[Gate], list[Gate]]:
    """Returns the gates that get a card, and those that share a table."""
    passed = [gate for gate in found if gate.kind == "kept" and gate.passed]
    tabled = passed if len(passed) > KEPT_CARDS else []
    return [gate for gate in found if gate not in tabled], tabled


def _kind(row: SideBySide) -> str:
    if row.right_after:
        return "kept" if row.right_before else "learned"
    return "lost" if row.right_before else "wrong"


def _method_in_short(report: RunReport) -> str:
    """Returns the settings that an engineer asks for first; '' where the report has none."""
    method: dict[str, Any] = report.settings.get("method", {})
    sdft, adaptation = method.get("sdft", {}), method.get("adaptation", {})
    teacher, optimizer = sdft.get("teacher", {}), method.get("optimizer", {})
    parts = {"": method.get("type")}
    if method.get("type") == "SDFT":
        parts |= {"divergence": sdft.get("divergence"), "teacher": teacher.get("weights")}
        parts |= {"EMA rate": teacher.get("emaRate") if teacher.get("weights") == "EMA" else None}
        parts |= {"template": sdft.get("prompt", {}).get("template")}
    parts |= {"adaptation": adaptation.get("type"), "learning rate": optimizer.get("learningRate")}
    parts |= {"batch": method.get("batchSize"), "answers of at most": method.get("rollout", {}).get("maxNewTokens")}
    return ", ".join(f"{name} {value}".strip() for name, value in parts.items() if value is not None)


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
