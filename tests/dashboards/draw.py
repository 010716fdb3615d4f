"""`python -m tests.dashboards.draw`: docs/images/dashboard-*.png, from the dashboards' JSON and a real Prometheus.

No Grafana can be had here, so this draws what each panel's queries answer, in the panel's place, unit and colours: what
a person would see, and not how Grafana would paint it.
"""

from __future__ import annotations

import io
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tests.dashboards.conftest import Past, remembered
from tests.dashboards.history import SECONDS, STARTED
from tests.dashboards.panels import Panel, Target, load, panels

IMAGES = Path(__file__).parents[2] / "docs/images"
COLUMN, LINE = 0.62, 0.36
"""Inches of one cell of the grid."""
GROUND, FIELD, TEXT, FAINT = "#111217", "#181b1f", "#d8d9da", "#8e8e99"
COLORS = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "yellow": "#fade2a", "blue": "#5794f2",
          "purple": "#b877d9", "light-blue": "#8ab8ff", "dark-blue": "#1f60c4", "light-purple": "#ca95e5",
          "dark-purple": "#8f3bb8"}  # fmt: skip
PALETTE = ["#73bf69", "#fade2a", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#ffcb7d"]
SHOWN = {"overview": (SECONDS, (".*", "")), "update": (720, STARTED)}
"""Seconds that each picture shows, and the namespace and update that are chosen in it."""
Answer = tuple[str, dict[str, Any]]
"""The words of a legend, and a series of Prometheus."""


def main() -> None:
    """Draws both dashboards."""
    mpl.rcParams.update({"font.size": 8, "text.color": TEXT, "axes.edgecolor": "#33363d", "text.parse_math": False,
                         "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, remembered(Path(folder), every=10) as past:
        for name in SHOWN:
            picture = io.BytesIO()
            draw(name, past).savefig(picture, dpi=100, facecolor=GROUND)
            Image.open(picture).convert("RGB").quantize(64).save(IMAGES / f"dashboard-{name}.png", optimize=True)


def draw(name: str, past: Past) -> Figure:
    """Returns the picture of a dashboard."""
    document = load(name)
    lines = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in document["panels"]) + 1
    figure = Figure(figsize=(24 * COLUMN, lines * LINE))
    figure.text(0.006, 1 - 0.45 / lines, document["title"], fontsize=13, va="center", weight="bold")
    for row in (each for each in document["panels"] if each["type"] == "row"):
        figure.text(0.006, 1 - (row["gridPos"]["y"] + 1.5) / lines, f"⌄ {row['title']}", fontsize=10, va="center")
    for panel in panels(name):
        _Frame(figure, panel, lines).fill(past, *SHOWN[name])
    return figure


class _Frame:
    """A panel's place in the picture."""

    def __init__(self, figure: Figure, panel: Panel, lines: int) -> None:
        place, self.panel = panel.raw["gridPos"], panel
        self.wide, self.high = place["w"] * COLUMN, place["h"] * LINE
        x, y = place["x"] / 24, 1 - (place["y"] + 1 + place["h"]) / lines
        self.axes: Axes = figure.add_axes((x + 0.003, y + 0.002, place["w"] / 24 - 0.006, place["h"] / lines - 0.004))
        self.axes.set(facecolor=FIELD, xticks=[], yticks=[])
        self.axes.text(0.1 / self.wide, 1 - 0.16 / self.high, panel.title, transform=self.axes.transAxes,
                       va="center", weight="bold")  # fmt: skip

    def fill(self, past: Past, seconds: float, chosen: tuple[str, str]) -> None:
        kind = self.panel.kind
        if kind in {"timeseries", "state-timeline"}:
            step = max(10.0, seconds / 240) if self.panel.raw.get("interval") != "1h" else 1200.0
            curves = [
                (_words(target, curve), curve)
                for target in self.panel.targets
                for curve in past.curves(target.expr.replace("$__interval", "20m"), chosen, seconds=seconds, step=step)
            ]
            (self._graph if kind == "timeseries" else self._timeline)(curves, past.end - seconds, past.end, step)
            return
        found = [(target, sample) for target in self.panel.targets for sample in past.values(target.expr, chosen)]
        if kind == "table":
            self._table(found)
        else:
            answers = [(_words(target, sample), sample) for target, sample in found]
            (self._stat if kind == "stat" else self._bars)(answers)

    def _inside(self, left: float, bottom: float, right: float = 0.1, top: float = 0.34) -> Axes:
        """Axes within the frame; the margins in inches."""
        width, height = self.wide - left - right, self.high - bottom - top
        inner = self.axes.inset_axes((left / self.wide, bottom / self.high, width / self.wide, height / self.high))
        inner.set_facecolor(FIELD)
        for side in ("top", "right"):
            inner.spines[side].set_visible(False)
        return inner

    # -- kinds of panels --------------------------------------------------------------------------------------------

    def _stat(self, answers: Sequence[Answer]) -> None:
        named = self.panel.raw["options"]["textMode"] == "name"
        values = [(words, float(sample["value"][1])) for words, sample in answers]
        values = [(words, value) for words, value in values if math.isfinite(value)]
        text, value = self.panel.defaults["noValue"], math.nan
        if values:
            words, value = values[0]
            text = words if named else self._value(value)
        color = FAINT if not values else self._step(value)
        self.axes.text(0.5, 0.4, text, transform=self.axes.transAxes, ha="center", va="center", color=color,
                       fontsize=19 if values else 11)  # fmt: skip

    def _graph(self, curves: Sequence[Answer], start: float, end: float, step: float) -> None:
        inner = self._inside(0.55, 0.3 + 0.17 * min(len(curves), 6))
        if not curves:
            inner.text(0.5, 0.5, "No data", transform=inner.transAxes, ha="center", color=FAINT)
        colors = self._fixed_colors()
        custom = self.panel.defaults["custom"]
        times = np.arange(start, end + 1, step)
        floor = np.zeros(len(times))
        for index, (words, curve) in enumerate(curves):
            color, y = colors.get(words, PALETTE[index % len(PALETTE)]), _on(times, curve)
            if custom["drawStyle"] == "bars":
                inner.bar(times, np.nan_to_num(y), width=0.7 * step, bottom=floor, color=color)
                floor += np.nan_to_num(y)
            elif custom.get("stacking"):
                inner.fill_between(times, floor, floor + np.nan_to_num(y), color=color, alpha=0.7, linewidth=0)
                floor += np.nan_to_num(y)
            else:
                inner.plot(times, y, color=color, linewidth=1.4, marker="." if len(times) < 80 else None)
            line = 0.12 + 0.17 * (min(len(curves), 6) - 1 - index)
            last = [value for value in y if math.isfinite(value)]
            total = np.nansum(y) if custom["drawStyle"] == "bars" else (last or [math.nan])[-1]
            if index < 6:
                self.axes.text(
                    0.12 / self.wide, line / self.high, "━", transform=self.axes.transAxes, color=color, va="center"
                )
                self.axes.text(0.32 / self.wide, line / self.high, words, transform=self.axes.transAxes, va="center")
                self.axes.text(1 - 0.1 / self.wide, line / self.high, self._value(float(total)),
                               transform=self.axes.transAxes, va="center", ha="right", color=FAINT)  # fmt: skip
        inner.set_xlim(start, end)
        if "min" in self.panel.defaults:
            inner.set_ylim(bottom=self.panel.defaults["min"], top=self.panel.defaults.get("max"))
        for step in self.panel.defaults.get("thresholds", {}).get("steps", ()):
            if step.get("value"):
                inner.axhline(step["value"], color=COLORS[step["color"]], linestyle="--", linewidth=1)
        inner.yaxis.set_major_formatter(lambda value, _: self._value(value))
        self._time_axis(inner, start, end)

    def _timeline(self, curves: Sequence[Answer], start: float, end: float, step: float) -> None:
        inner = self._inside(1.2, 0.3)
        colors = self._fixed_colors()
        for lane, (words, curve) in enumerate(reversed(curves)):
            for at, _ in curve["values"]:
                inner.barh(lane, step, left=at, height=0.8, color=colors[words], linewidth=0)
        inner.set_yticks(range(len(curves)), [words for words, _ in reversed(curves)])
        inner.set_xlim(start, end)
        self._time_axis(inner, start, end)

    def _bars(self, answers: Sequence[Answer]) -> None:
        if any(target.format == "heatmap" for target in self.panel.targets):
            answers = _of_buckets(answers)
        values = [(words, float(sample["value"][1])) for words, sample in answers]
        values = [(words, value) for words, value in values if math.isfinite(value)]
        if not values:
            self.axes.text(
                0.5, 0.5, self.panel.defaults["noValue"], transform=self.axes.transAxes, ha="center", color=FAINT
            )
            return
        inner = self._inside(1.6, 0.1, right=0.7)
        for lane, (_, value) in enumerate(reversed(values)):
            inner.barh(lane, value, height=0.7, color=self._step(value))
            inner.text(value, lane, f" {self._value(value)}", va="center")
        inner.set_yticks(range(len(values)), [words for words, _ in reversed(values)])
        inner.set_xlim(0, 1.1 * max(1e-9, *(value for _, value in values)))
        inner.set_xticks([])

    def _table(self, found: Sequence[tuple[Target, dict[str, Any]]]) -> None:
        (options,) = [each["options"] for each in self.panel.raw["transformations"] if each["id"] == "organize"]
        columns = sorted(options["renameByName"], key=options["indexByName"].get)
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        keys = set.intersection(*(set(sample["metric"]) for _, sample in found)) if found else set()
        for target, sample in found:
            row = rows.setdefault(tuple(sample["metric"][key] for key in sorted(keys)), {})
            row |= sample["metric"]
            name = options["renameByName"].get(f"Value #{target.ref}")
            row[f"Value #{target.ref}"] = self._value(float(sample["value"][1]), self._of_column(name))
        for index, column in enumerate(columns):
            x = (0.15 + index * (self.wide - 0.2) / len(columns)) / self.wide
            for line, text in enumerate(
                [options["renameByName"][column], *(row.get(column, "") for row in rows.values())]
            ):
                self.axes.text(x, 1 - (0.52 + 0.28 * line) / self.high, text, transform=self.axes.transAxes,
                               va="center", color=COLORS["blue"] if not line else TEXT)  # fmt: skip
        if not rows:
            self.axes.text(
                0.5, 0.5, self.panel.defaults["noValue"], transform=self.axes.transAxes, ha="center", color=FAINT
            )

    def _of_column(self, name: str | None) -> str:
        for override in self.panel.raw["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == name:
                return next((each["value"] for each in override["properties"] if each["id"] == "unit"), "short")
        return "short"

    # -- values -----------------------------------------------------------------------------------------------------

    def _value(self, value: float, unit: str = "") -> str:
        return shown(value, unit or self.panel.defaults.get("unit", "short"), self.panel.defaults.get("decimals"))

    def _step(self, value: float) -> str:
        steps = self.panel.defaults["thresholds"]["steps"]
        reached = [step["color"] for step in steps if step.get("value") is None or value >= step["value"]]
        return COLORS[reached[-1]]

    def _fixed_colors(self) -> dict[str, str]:
        named = {
            entry["matcher"]["options"]: entry["properties"][0]["value"]["fixedColor"]
            for entry in self.panel.raw["fieldConfig"]["overrides"]
        }
        return {words: COLORS.get(color, color) for words, color in named.items()}

    def _time_axis(self, inner: Axes, start: float, end: float) -> None:
        ticks = np.linspace(start, end, 5)
        ago = (end - ticks) / 60
        inner.set_xticks(ticks, [f"-{minutes:.0f} min" if minutes >= 1 else "now" for minutes in ago])


def shown(value: float, unit: str, decimals: float | None = None) -> str:
    """Returns a number as Grafana words it, more or less."""
    if not math.isfinite(value):
        return "–"
    words: dict[str, Callable[[float], str]] = {
        "percentunit": lambda v: f"{v:.0%}",
        "s": _seconds,
        "bytes": lambda v: f"{v / 2**30:.2f} GiB" if v >= 2**30 else f"{v / 2**20:.0f} MiB",
        "ops": lambda v: f"{v:.3g} ops/s",
        "reqps": lambda v: f"{v:.3g} req/s",
    }
    return words.get(unit, lambda v: f"{v:.0f}" if decimals == 0 else f"{v:.3g}")(value)


def _seconds(value: float) -> str:
    for unit, size in (("hours", 3600), ("min", 60)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s" if abs(value) >= 0.1 or not value else f"{1000 * value:.3g} ms"


def _words(target: Target, answer: dict[str, Any]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: answer["metric"].get(match[1], ""), target.legend)


def _on(times: np.ndarray, curve: dict[str, Any]) -> np.ndarray:
    """Returns the values at these times; NaN where there is none."""
    known = {round(float(at)): float(value) for at, value in curve["values"]}
    return np.array([known.get(round(float(at)), math.nan) for at in times])


def _of_buckets(answers: Sequence[Answer]) -> list[Answer]:
    """Returns a histogram's buckets without what is in the bucket before."""
    ordered = sorted(answers, key=lambda answer: float(answer[1]["metric"]["le"]))
    before, result = 0.0, []
    for words, sample in ordered:
        count = float(sample["value"][1])
        result.append((words, {**sample, "value": [0, str(count - before)]}))
        before = count
    return result


if __name__ == "__main__":
    main()
