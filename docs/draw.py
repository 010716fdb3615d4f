"""Draws docs/images/gates.svg, the three verdicts as they come out of the real gate: `python docs/draw.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from skill_contract.evaluation import Comparison, Verdict
from skill_contract.spec import RetentionGate
from skill_trainer.gates import retention_gates
from skill_trainer.report.svg import COLOURS, draw_svg

PICTURE = Path(__file__).parent / "images/gates.svg"
MAX_DROP = 0.05
TONES = {Verdict.PASSED: "good", Verdict.FAILED: "bad", Verdict.INCONCLUSIVE: "unsure"}
PALETTES = {
    "light": "--ink: #1f2328; --muted: #59636e; --line: #d1d9e0; --good: #1a7f37; --bad: #c9252d; --unsure: #9a6700",
    "dark": "--ink: #e6edf3; --muted: #9198a1; --line: #3d444d; --good: #3fb950; --bad: #f85149; --unsure: #d29922",
}


@dataclass(frozen=True)
class Case:
    """A suite of `n` questions: how many right answers became wrong ones, and how many wrong ones right."""

    n: int
    lost: int
    won: int

    def judged(self) -> Comparison:
        """Returns what the gate says of it; a tenth of the questions was answered wrong before."""
        wrong = max(self.won, self.n // 10)
        before = [True] * (self.n - wrong) + [False] * wrong
        after = (
            [False] * self.lost + before[self.lost : self.n - wrong] + [True] * self.won + [False] * (wrong - self.won)
        )
        gate = RetentionGate(max_drop=MAX_DROP, min_normalized=0.0)
        (comparison,) = retention_gates({"suite": before}, {"suite": after}, gate)
        return comparison

    def title(self) -> str:
        """Returns its numbers in words."""
        return f"{self.n} questions, {self.lost} lost, {self.won} won"


CASES = (
    Case(400, 4, 6),
    Case(120, 2, 3),
    Case(120, 6, 2),
    Case(1200, 60, 20),
    Case(400, 48, 4),
    Case(30, 0, 0),
)


def rows() -> list[tuple[str, Comparison]]:
    """Returns every case with its verdict."""
    return [(case.title(), case.judged()) for case in CASES]


def picture() -> str:
    """Returns the SVG document, in the colours of whoever looks at it."""
    drawn = rows()

    def draw(axes: Axes) -> None:
        axes.axvspan(-MAX_DROP, 0.12, color=COLOURS["good"], alpha=0.07, linewidth=0)
        axes.axvspan(-0.2, -MAX_DROP, color=COLOURS["bad"], alpha=0.07, linewidth=0)
        axes.axvline(-MAX_DROP, color=COLOURS["ink"], linewidth=1.8)
        for place, (title, row) in zip(reversed(range(len(drawn))), drawn, strict=True):
            colour = COLOURS[TONES[row.verdict]]
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=6, alpha=0.45)
            axes.plot(row.gain, place, "o", color=colour, markersize=7)
            axes.text(-0.195, place + 0.3, title, va="bottom")
            axes.text(0.115, place + 0.3, str(row.verdict), va="bottom", ha="right", color=colour, fontweight="bold")
        axes.text(-MAX_DROP, len(drawn) - 0.05, f"maxDrop {MAX_DROP}", ha="center", va="bottom", fontweight="bold")
        axes.set_xlim(-0.2, 0.12)
        axes.set_ylim(-0.5, len(drawn) + 0.3)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("change of the score, with its 95 % interval")

    spoken = "; ".join(f"{title}: {row.low} to {row.high}, {row.verdict}" for title, row in drawn)
    svg = draw_svg(draw, width=8.0, height=4.6, name="gates", label=f"Six retention suites. {spoken}")
    style = f"svg {{ {PALETTES['light']} }} @media (prefers-color-scheme: dark) {{ svg {{ {PALETTES['dark']} }} }}"
    whole = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg", whole, 1).replace(">", f"><style>{style}</style>", 1) + "\n"


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(picture())


if __name__ == "__main__":
    main()
