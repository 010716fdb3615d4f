"""The growth of the operator's figures with the number of updates, as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.operator.measure import Result
from skill_trainer.compare.figures import INK, MUTED, STYLE, standalone

_BLUE, _ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito
Curve = tuple[str, str, Callable[[Result], float]]


def scale_figure(results: Sequence[Result]) -> str:
    """Returns memory, start, speed and rest against the number of updates; dashed is the target at 1,000."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.4), layout="constrained", facecolor="none")
        (memory, start), (speed, rest) = figure.subplots(2, 2, sharex=True)
        steady: Curve = ("steady", _BLUE, lambda result: result.steady_mib)
        peak: Curve = ("peak", _ORANGE, lambda result: result.peak_mib)
        _draw(memory, results, "memory, MiB", 150, steady, peak)
        _draw(start, results, "cold start, s", 30, ("", _BLUE, lambda result: result.cold_start_s))
        half: Curve = ("p50", _BLUE, lambda result: result.percentile(0.5))
        most: Curve = ("p99", _ORANGE, lambda result: result.percentile(0.99))
        _draw(speed, results, "event to status, s", 2, half, most)
        idle: Curve = ("trainers silent", _BLUE, lambda result: result.idle.cpu_s)
        reporting: Curve = ("all report", _ORANGE, lambda result: result.reporting.cpu_s)
        _draw(rest, results, "CPU seconds a minute", None, idle, reporting)
        for axes in (speed, rest):
            axes.set_xlabel("SkillUpdates, a fifth of them active")
        return standalone(figure)


def _draw(axes: Axes, results: Sequence[Result], title: str, target: float | None, *curves: Curve) -> None:
    axes.set_facecolor("none")
    axes.set_title(title)
    sizes = [result.objects for result in results]
    if target is not None:
        axes.plot([0, 1000, 1000], [target, target, 0], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for name, colour, value in curves:
        axes.plot(sizes, [value(result) for result in results], color=colour, marker="o", markersize=4, label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if len(curves) > 1:
        axes.legend(frameon=False, labelcolor=INK)
