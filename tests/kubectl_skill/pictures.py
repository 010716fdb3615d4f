"""`make pictures`: docs/images/kubectl-skill-*.svg anew, as a terminal shows the plugin's answers.

The updates in them are played by the operator's own plan (tests/operator/sim.py), the clock stands still: the same code
draws the same pictures.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from kubectl_skill.commands.explain import drawn
from kubectl_skill.drawing import draw, overview
from kubectl_skill.explaining import explain
from kubectl_skill.picture import picture
from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.outcome import Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.api import to_rfc3339
from tests.operator import raw
from tests.operator.raw import NOW, PREVIOUS, Raw
from tests.operator.sim import Sim

IMAGES = Path(__file__).parents[2] / "docs/images"
COLUMNS = 118
CHECKED = "312 training records, 120 held-out questions, 1 retention suite; 130 steps from 000041-aaaaaaaaaaaa"
INK, PAPER, GREY = (55, 53, 47), (251, 251, 250), (155, 154, 151)
INKS = [INK, (191, 58, 48), (46, 125, 70), (160, 108, 0), (36, 92, 168), (125, 70, 140), (15, 118, 130), INK]
"""Black, red, green, yellow, blue, magenta, cyan, white, as they are read on paper."""
THEME = TerminalTheme(PAPER, INK, INKS, [GREY, *INKS[1:]])
FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""A picture in a repository loads nothing from anywhere."""


def compared(suite: str, before: float, after: float, margin: float, verdict: Verdict, reason: str = "") -> Comparison:
    gain = after - before
    return Comparison(
        suite=suite, before=before, after=after, gain=gain, low=gain - margin, high=gain + margin, n=120,
        normalized=after / before if before else 1, verdict=verdict, reason=reason,
    )  # fmt: skip


GOOD = Evaluation(
    new_skill=compared("refund-tool", 0.06, 0.82, 0.08, Verdict.PASSED),
    retention=(
        compared("general-qa", 0.91, 0.90, 0.01, Verdict.PASSED),
        compared("order-status", 0.88, 0.87, 0.02, Verdict.PASSED),
    ),
    worst_retention=0.989,
    step=125,
    verdict=Verdict.PASSED,
)
FORGOTTEN = Evaluation(
    new_skill=compared("returns", 0.10, 0.85, 0.07, Verdict.PASSED),
    retention=(
        compared("general-qa", 0.91, 0.62, 0.08, Verdict.FAILED,
                 "as low as -0.37 (95 %), and a drop of 0.02 is allowed: smaller learningRate, fewer steps"),
        compared("refund-tool", 0.82, 0.81, 0.01, Verdict.PASSED),
    ),
    worst_retention=0.68,
    verdict=Verdict.FAILED,
)  # fmt: skip


def begun(name: str) -> Sim:
    """An update whose trainer runs."""
    sim = Sim(raw.update(name=name), raw.deployment(weights=PREVIOUS))
    sim.settle()
    sim.now += 14
    sim.finish("check", raw.outcome(Step.CHECK, message=CHECKED))
    sim.settle()
    sim.pod("train", raw.running())
    sim.progress = Progress(
        stage=Stage.TRAINING, step=60, total=130, eta_seconds=1260, loss=0.412, tokens_per_second=8150,
        last_checkpoint=50, heartbeat=NOW + 1080,
    )  # fmt: skip
    sim.now += 1080
    sim.settle()
    return sim


def judged(name: str, evaluation: Evaluation, result: Result, reason: str, message: str) -> Sim:
    sim = begun(name)
    sim.now += 1320
    outcome = raw.outcome(Step.TRAIN, result, reason, message).model_copy(update={"evaluation": evaluation})
    sim.finish("train", outcome)
    sim.progress = None
    sim.settle()
    return sim


def soaking() -> Sim:
    sim = judged("refund-tool", GOOD, Result.SUCCEEDED, "Published", "refund-tool 0.06 → 0.82; worst retention 0.99")
    sim.now += 95
    sim.roll()
    sim.settle()
    sim.now += 12
    return sim


def forgotten() -> Sim:
    message = "general-qa fell from 0.91 to 0.62: more than the 0.02 that gates.retention.maxDrop allows"
    return judged("returns", FORGOTTEN, Result.REJECTED, "SkillForgotten", message)


def body(sim: Sim) -> Raw:
    created = to_rfc3339(sim.now - 2521)
    return raw.merged(
        sim.body,
        {"metadata": {"namespace": "support", "creationTimestamp": created, "uid": sim.body["metadata"]["name"]}},
    )


def save(name: str, command: str, renderable: RenderableType) -> None:
    console = Console(file=io.StringIO(), width=COLUMNS, record=True, force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
    console.print(renderable)
    svg = console.export_svg(title="kubectl skill", theme=THEME, unique_id=f"kubectl-skill-{name}")
    path = IMAGES / f"kubectl-skill-{name}.svg"
    path.write_text("".join(f"{line.rstrip()}\n" for line in FONTS.sub("", svg).splitlines()))
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    training, serving, rejected = begun("order-status"), soaking(), forgotten()
    now = serving.now
    save("status", "kubectl skill status refund-tool", draw(picture(body(serving), now), now))
    save("training", "kubectl skill watch order-status", draw(picture(body(training), training.now), training.now))
    seen = picture(body(rejected), now)
    save("explain", "kubectl skill explain returns", drawn(seen, explain(seen, (), (), now)))
    fleet = [picture(body(sim), sim.now) for sim in (training, serving, rejected)]
    save("list", "kubectl skill list", overview(fleet, now, namespaces=False))


if __name__ == "__main__":
    main()
