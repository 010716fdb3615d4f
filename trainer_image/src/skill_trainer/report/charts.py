"""The charts of a report as SVG that takes the page's colours: CSS variables stand where matplotlib wrote a colour.

Static SVG instead of an interactive library: a report with all its charts is some 100 kB, runs no script, prints, and
is readable in ten years.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skill_contract.evaluation import Comparison, Verdict
from skill_trainer.report.document import StepPoint

# Colours that nobody draws with, each to be replaced by the CSS variable of that name.
_COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "line": "#010205",
    "accent": "#010206",
    "good": "#010207",
    "bad": "#010208",
    "unsure": "#010209",
}
_VERDICTS = {Verdict.PASSED: "good", Verdict.FAILED: "bad", Verdict.INCONCLUSIVE: "unsure"}
_STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _COLOURS["ink"],
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.titlecolor": _COLOURS["ink"],
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": _COLOURS["muted"],
    "ytick.color": _COLOURS["muted"],
    "lines.linewidth": 1.6,
}
WIDTH = 4.4
"""Inches: as wide as a phone, so that text keeps its size there."""


def changes_chart(rows: Sequence[tuple[str, Comparison, float]]) -> str:
    """Returns a dot plot of changes with their 95 % intervals, one row per (label, comparison, threshold)."""

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=_COLOURS["muted"], linewidth=1)
        for place, (_, row, threshold) in enumerate(reversed(rows)):
            colour = _COLOURS[_VERDICTS[row.verdict]]
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot(row.gain, place, "o", color=colour, markersize=8)
            axes.plot([threshold] * 2, [place - 0.32, place + 0.32], color=_COLOURS["ink"], linewidth=1.4)
        axes.set_yticks(range(len(rows)), [_shortened(label) for label, *_ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=_COLOURS["ink"])
        axes.set_xlabel("change of the share of right answers")

    return _svg(draw, height=0.75 + 0.36 * len(rows), name="changes")


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


_CURVES: Mapping[str, Callable[[StepPoint], float | None]] = {
    "Loss": lambda point: point.loss,
    "Divergence from the teacher, nats per token": lambda point: point.divergence,
    "Entropy of the student, nats per token": lambda point: point.entropy,
    "Length of a completion, tokens": lambda point: point.completion_tokens,
    "Gradient norm before clipping": lambda point: point.gradient_norm,
    "Learning rate": lambda point: point.learning_rate,
}


def curve_charts(series: Sequence[StepPoint]) -> Iterator[tuple[str, str]]:
    """Yields title and SVG of a curve over steps for every measurement that was made, then of the probed suites."""
    for title, value in _CURVES.items():
        points = [(point.step, measured) for point in series if (measured := value(point)) is not None]
        if points:
            yield title, _curve(title, {"": points})
    suites = dict.fromkeys(suite for point in series for suite in point.scores)
    probes = {
        suite: [(point.step, point.scores[suite]) for point in series if suite in point.scores] for suite in suites
    }
    if probes:
        yield "Share of right answers, by suite", _curve("probes", probes)


def _curve(name: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    styles = ("-", "--", ":", "-.")

    def draw(axes: Axes) -> None:
        for place, (label, points) in enumerate(lines.items()):
            marker = "o" if len(points) < 12 else None
            style = styles[place % len(styles)]
            axes.plot(
                *zip(*points, strict=True), style, color=_COLOURS["accent"], marker=marker, markersize=4, label=label
            )
        if len(lines) > 1:
            axes.legend(frameon=False)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return _svg(draw, height=2.1, name=name)


def time_chart(seconds: Mapping[str, float]) -> str:
    """Returns a bar chart of seconds by part."""

    def draw(axes: Axes) -> None:
        bars = axes.barh(list(seconds), list(seconds.values()), color=_COLOURS["accent"], height=0.6)
        axes.bar_label(bars, [f"{value:.0f} s" for value in seconds.values()], padding=4, color=_COLOURS["ink"])
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=_COLOURS["ink"])
        axes.set_xlabel("seconds")

    return _svg(draw, height=0.7 + 0.32 * len(seconds), name="time")


def _svg(draw: Callable[[Axes], None], *, height: float, name: str) -> str:
    """Returns the drawing as an `<svg>` element without a fixed size; `name` keeps its ids apart from other charts'."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(out.getvalue())


def _themed(svg: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = svg.replace("'DejaVu Sans'", "system-ui")
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
