"""From a matplotlib drawing to an `<svg>` element that takes the page's colours and shows anybody's text.

Static SVG instead of an interactive library: a report with all its charts is some 150 kB, runs no script, prints, and
is readable in ten years. matplotlib sees neither the colours nor the texts that the page shows: CSS variables stand
where it wrote a colour, and foreign texts (names of suites, in any script) where it wrote their placeholder, so that no
font of ours has to know their letters.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "line": "#010205",
    "good": "#010206",
    "bad": "#010207",
    "unsure": "#010208",
    "card": "#010209",
    **{f"series-{place}": f"#0103{place:02d}" for place in range(1, 7)},
}
"""Colours that nobody draws with, each to be replaced by the CSS variable of that name."""

_STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


class Texts:
    """Foreign texts of one chart and what stands for them while it is drawn."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def stand_in(self, text: str, most: int) -> str:
        """Returns the placeholder of `text`, which is shown with at most `most` characters."""
        name = f"%{len(self._texts)}%"
        self._texts[name] = text if len(text) <= most else f"{text[: most - 1]}…"
        return name

    def put_into(self, svg: str) -> str:
        return re.sub(r"%\d+%", lambda found: html.escape(self._texts[found[0]]), svg)


def draw_svg(
    draw: Callable[[Axes], None], *, width: float, height: float, name: str, label: str, texts: Texts | None = None
) -> str:
    """Returns the drawing as an `<svg>` element as wide as its place.

    Args:
        width: in inches, as `height`; a text of 10 points is 10 pixels where the place is 72 pixels an inch.
        name: keeps its ids apart from those of other charts.
        label: what somebody hears who cannot see it; foreign text is welcome.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = _themed(out.getvalue())
    spoken = html.escape(label)  # last, so that nothing in it is taken for a placeholder
    svg = texts.put_into(svg) if texts else svg
    return svg.replace("<svg", f'<svg role="img" aria-label="{spoken}"', 1)


def _themed(svg: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # a hundredth of a pixel is enough
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    return re.sub(r"<svg[^>]*>", f"<svg {box[0]}>", svg, count=1)
