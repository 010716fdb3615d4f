"""The charts of a report: scores with their intervals, curves over steps, time by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from skill_contract.evaluation import Verdict
from skill_trainer.report.document import RunReport, StepPoint
from skill_trainer.report.svg import COLOURS, Texts, draw_svg
from skill_trainer.report.verdict import Gate

_TONES = {Verdict.PASSED: "good", Verdict.FAILED: "bad", Verdict.INCONCLUSIVE: "unsure"}
_SIGNS = {Verdict.PASSED: "✓", Verdict.FAILED: "✗", Verdict.INCONCLUSIVE: "?"}
_KINDS = {"learned": "learned", "kept": "kept", "teacher": "demonstration"}
NARROW, WIDE = 4.0, 10.4
"""Inches: a phone and a page, so that text keeps its size on both."""
MOST_ROWS = 16
MOST_POINTS = 240
"""Of one curve: longer runs are shown by the mean of neighbouring steps with the range they cover."""

Points = Sequence[tuple[int, float]]


def scores_chart(found: Sequence[Gate], width: float) -> str:
    """Returns one row per gate: the score before and after, the interval and what was asked, on a scale from 0 to 1."""
    rows, texts = found[:MOST_ROWS], Texts()

    def draw(axes: Axes) -> None:
        for place, gate in zip(reversed(range(len(rows))), rows, strict=True):
            row, colour = gate.row, COLOURS[_TONES[gate.row.verdict]]
            low, high = (min(1.0, max(0.0, row.before + bound)) for bound in (row.low, row.high))
            asked = min(1.0, max(0.0, row.before + gate.threshold))
            axes.plot([0, 1], [place, place], color=COLOURS["line"], linewidth=1, zorder=1)
            axes.plot([low, high], [place, place], color=colour, linewidth=6, alpha=0.4, zorder=2)
            axes.plot([asked] * 2, [place - 0.2, place + 0.2], color=COLOURS["ink"], linewidth=1.8, zorder=3)
            axes.plot(
                row.before, place, "o", markerfacecolor=COLOURS["card"], markeredgecolor=colour, markeredgewidth=1.8,
                markersize=11, zorder=4,
            )  # fmt: skip
            axes.plot(row.after, place, "o", color=colour, markersize=7, zorder=5)
            title = texts.stand_in(f"{_KINDS[gate.kind]}: {row.suite}", int(6.5 * width))
            axes.text(-0.015, place + 0.3, title, va="bottom", fontweight="bold")
            said = f"{row.before:.2f} → {row.after:.2f}  {row.verdict if width > NARROW else _SIGNS[row.verdict]}"
            axes.text(1.015, place + 0.3, said, va="bottom", ha="right", color=colour, fontweight="bold")
        axes.set_ylim(-0.5, len(rows) - 0.2)
        axes.set_xlim(-0.02, 1.02)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of right answers")

    spoken = "; ".join(
        f"{_KINDS[gate.kind]} {gate.row.suite}: {gate.row.before:.2f} before, {gate.row.after:.2f} after, "
        f"{gate.row.verdict}"
        for gate in rows
    )
    return draw_svg(
        draw, width=width, height=0.6 + 0.62 * len(rows), name=f"scores-{width}", texts=texts,
        label=f"Scores before and after. {spoken}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    title: str
    svg: str
    legend: tuple[str, ...] = ()
    """Names of the lines in the order of the series' colours, where there are several."""


_PROBES, _DRIFT, _RATE = "Share of right answers in the probes", "Drift, nats per token", "Learning rate"
_NOISELESS = {_PROBES, _DRIFT, _RATE}
"""Not smoothed: a probe asks the same questions each time, and the learning rate is a formula."""
_DASHES = ("-", "--", ":")
"""Of the lines in one chart, beside their colours; the legend has the same."""
_CURVES: Mapping[str, Callable[[StepPoint], float | None]] = {
    "Loss": lambda point: point.loss,
    "Divergence, nats per token": lambda point: point.divergence,
    "Entropy, nats per token": lambda point: point.entropy,
    "Length of an answer, tokens": lambda point: point.completion_tokens,
    "Share of an answer that is thought": lambda point: point.thought_share,
    "Share of answers cut at the limit": lambda point: point.cut_share,
    "Share without repetition": lambda point: point.distinct_share,
    "Share of the loss in 1 % of the tokens": lambda point: point.top_share,
    "Gradient norm before clipping": lambda point: point.gradient_norm,
    _RATE: lambda point: point.learning_rate,
}


def curves(report: RunReport) -> Iterator[Curve]:
    """Yields what was probed, then a curve for every measurement that was made; marks are lines across each."""
    series = report.series
    suites = list(dict.fromkeys(suite for point in series for suite in point.scores))[:6]
    probes = [[(point.step, point.scores[suite]) for point in series if suite in point.scores] for suite in suites]
    if suites:
        yield Curve(_PROBES, _curve(_PROBES, probes, report), tuple(suites))
    drifts = {
        "student": [(point.step, point.drift) for point in series if point.drift is not None],
        "teacher": [(point.step, point.teacher_drift) for point in series if point.teacher_drift is not None],
    }
    if drifted := {name: points for name, points in drifts.items() if points}:
        yield Curve(_DRIFT, _curve(_DRIFT, [*drifted.values()], report), tuple(drifted))
    is_divergence = any(point.divergence is not None for point in series) and all(
        point.loss == point.divergence for point in series
    )
    for title, value in _CURVES.items():
        points = [(point.step, measured) for point in series if (measured := value(point)) is not None]
        if points and not (title == "Loss" and is_divergence):
            yield Curve(title, _curve(title, [points], report))


def _curve(title: str, lines: Sequence[Points], report: RunReport) -> str:
    def draw(axes: Axes) -> None:
        for place, points in enumerate(lines):
            colour, dashes = COLOURS[f"series-{place + 1}"], _DASHES[place % len(_DASHES)]
            if title in _NOISELESS or len(points) < 12:
                marker = "" if title == _RATE or len(points) > 40 else "o"
                axes.plot(*zip(*points, strict=True), dashes, color=colour, marker=marker, markersize=3.5)
            else:
                _noisy_line(axes, points, colour)
        for mark in report.marks:
            axes.axvline(mark.step, color=COLOURS["bad" if mark.stopped else "unsure"], linewidth=1, linestyle=":")
        if report.chosen_step is not None:
            axes.axvline(report.chosen_step, color=COLOURS["good"], linewidth=1.2, linestyle="--")
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        values = [value for points in lines for _, value in points]
        if title.startswith("Share") and max(values) <= 1:
            axes.set_ylim(-0.03, 1.03)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        elif min(values) >= 0:
            axes.set_ylim(bottom=0)

    return draw_svg(draw, width=NARROW, height=2.1, name=title, label=f"{title}: {_spoken(lines)}")


def _noisy_line(axes: Axes, points: Points, colour: str) -> None:
    """Draws each step thinly, or the range of neighbouring ones, and their running mean boldly."""
    steps, means, lows, highs = zip(*_thinned(points), strict=True)
    if len(points) > MOST_POINTS:
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.25, linewidth=0)
    else:
        axes.plot(steps, means, color=colour, linewidth=0.9, alpha=0.45)
    axes.plot(steps, _running_mean(means), color=colour)


def _thinned(points: Points) -> list[tuple[int, float, float, float]]:
    """Returns at most MOST_POINTS groups of neighbours: the middle step, their mean, least and most."""
    size = ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    values = [[value for _, value in group] for group in groups]
    return [
        (group[len(group) // 2][0], sum(each) / len(each), min(each), max(each))
        for group, each in zip(groups, values, strict=True)
    ]


def _running_mean(values: Sequence[float]) -> list[float]:
    half = max(1, len(values) // 24)
    windows = (values[max(0, place - half) : place + half + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _spoken(lines: Sequence[Points]) -> str:
    parts = [
        f"{points[0][1]:.3g} at step {points[0][0]}, {points[-1][1]:.3g} at step {points[-1][0]}, "
        f"between {min(value for _, value in points):.3g} and {max(value for _, value in points):.3g}"
        for points in lines
    ]
    return "; ".join(parts)


def time_chart(seconds: Mapping[str, float], width: float) -> str:
    """Returns a bar chart of seconds by part, each with its share of the whole."""
    texts, whole = Texts(), sum(seconds.values()) or 1.0

    def draw(axes: Axes) -> None:
        for place, (part, spent) in zip(reversed(range(len(seconds))), seconds.items(), strict=True):
            axes.barh(place, spent, height=0.3, color=COLOURS["series-1"])
            axes.text(0, place + 0.22, texts.stand_in(part, int(7 * width)), va="bottom")
            said = f"{spent:.0f} s · {100 * spent / whole:.0f} %" if spent >= 1 else f"{spent:.2f} s"
            axes.text(max(seconds.values()) or 1.0, place + 0.22, said, va="bottom", ha="right", color=COLOURS["muted"])
        axes.set_ylim(-0.4, len(seconds) - 0.3)
        axes.set_xlim(0, max(seconds.values()) or 1.0)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds")

    spoken = ", ".join(f"{part} {spent:.0f} seconds" for part, spent in seconds.items())
    return draw_svg(
        draw, width=width, height=0.6 + 0.42 * len(seconds), name=f"time-{width}", texts=texts,
        label=f"Time by part: {spoken}",
    )  # fmt: skip
