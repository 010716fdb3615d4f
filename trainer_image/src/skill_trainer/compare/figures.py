"""The two figures of a comparison as SVG files that stand alone and follow the reader's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from skill_trainer.compare.summary import KEPT, Cell, Matrix, Mean, Point, Row
from skill_trainer.compare.writing import said

# Colours that nobody draws with, each replaced by a CSS variable: (light, dark).
_THEME = {
    "ink": ("#010203", "#1f2328", "#e6edf3"),
    "muted": ("#010204", "#59636e", "#9198a1"),
    "line": ("#010205", "#d1d9e0", "#3d444d"),
}
INK, MUTED, LINE = (each[0] for each in _THEME.values())
# Source: Okabe and Ito, a palette for all kinds of colour vision; readable on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "compare",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def comparison_figure(points: Sequence[Point], rows: Sequence[Row]) -> str:
    """Returns new skill against retention: every run a small mark, every variant its mean with 95 % intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.set_axisbelow(True)
        axes.axvline(KEPT, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, row in enumerate(row for row in rows if not row.skill):
            if row.retention is None or row.new_skill is None:
                continue
            look: Any = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
            own = [point for point in points if point.variant == row.variant]
            axes.plot(
                [point.retention for point in own], [point.new_skill for point in own], linestyle="none",
                markersize=4.5, alpha=0.45, markeredgewidth=0, **look,
            )  # fmt: skip
            axes.errorbar(
                row.retention.value, row.new_skill.value, xerr=_reach(row.retention), yerr=_reach(row.new_skill),
                markersize=10, linewidth=1.6, label=row.variant, **look,
            )  # fmt: skip
        axes.set_xlabel("retention: worst suite, after / before")
        axes.set_ylabel("new skill: share of right answers")
        figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
        return standalone(figure)


def _reach(mean: Mean) -> list[list[float]] | None:
    if mean.low is None or mean.high is None:
        return None
    return [[mean.value - mean.low], [mean.high - mean.value]]


def matrix_figure(matrices: Sequence[Matrix]) -> str:
    """Returns the retention matrices as heat maps side by side; ▼ marks what fell below KEPT."""
    suites = list(dict.fromkeys(cell.suite for cell in matrices[0].cells))
    stages = len(matrices[0].stages)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        size = (1.5 + len(matrices) * (0.4 + 1.05 * (stages + 1)), 1.9 + 0.55 * len(suites))
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        grid = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
        for axes, matrix in zip(grid, matrices, strict=True):
            _heat_map(axes, matrix, suites)
        return standalone(figure)


def _heat_map(axes: Axes, matrix: Matrix, suites: Sequence[str]) -> None:
    axes.set_facecolor("none")
    axes.set_title(matrix.variant)
    for cell in matrix.cells:
        row = suites.index(cell.suite)
        fill = "none" if cell.normalized is None else _fill(cell.normalized.value)
        axes.add_patch(Rectangle((cell.stage - 0.48, row - 0.46), 0.96, 0.92, facecolor=fill, edgecolor=LINE))
        axes.text(cell.stage, row, _words(cell), ha="center", va="center", fontsize=9, color=_text_colour(cell))
    for stage, verdicts in enumerate(matrix.verdicts, 1):
        words = said(verdicts).replace(", ", "\n")
        axes.text(stage, len(suites) - 0.42, words, ha="center", va="top", fontsize=7.5, color=MUTED)
    axes.set_xlim(-0.55, len(matrix.stages) + 0.55)
    axes.set_ylim(len(suites) + 0.5, -0.55)
    axes.set_xticks(range(len(matrix.stages) + 1), ["untrained", *(f"after\n{skill}" for skill in matrix.stages)])
    axes.xaxis.tick_top()
    axes.set_yticks([*range(len(suites)), len(suites) - 0.3], [*suites, "the gates"])
    axes.tick_params(length=0, labelcolor=INK, pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _words(cell: Cell) -> str:
    if cell.normalized is None:
        return f"{cell.score.value:.2f}"
    return f"{cell.normalized.value:.2f}{'' if cell.kept else ' ▼'}\n({cell.score.value:.2f})"


def _fill(share: float) -> Any:
    """Blue where it was kept, through white at KEPT, to red where it is gone."""
    place = 0.5 + (share - KEPT) * (2.5 if share > KEPT else 0.5 / KEPT)
    return mpl.colormaps["RdBu"](min(0.8, max(0.22, place)))


def _text_colour(cell: Cell) -> str:
    """Filled cells are light in both themes, so their text is dark in both."""
    return MUTED if cell.normalized is None else "#1f2328"


def standalone(figure: Figure) -> str:
    """Returns a figure as an SVG file whose INK, MUTED and LINE follow the reader's theme."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for name, (colour, *_) in _THEME.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    light, dark = (" ".join(f"--{name}: {each[side]};" for name, each in _THEME.items()) for side in (1, 2))
    style = f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    return svg.replace(">", f">{style}", 1)
