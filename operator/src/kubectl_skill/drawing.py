"""How a picture looks on a terminal: words, glyphs and colours; the glyphs say everything that the colours say.

Pure: it makes renderables and prints nothing. Foreign words come in as Text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kubectl_skill.picture import Picture, Tone
from kubectl_skill.stages import Stage, State
from kubectl_skill.times import age, duration
from skill_contract.evaluation import Comparison, Verdict
from skill_contract.progress import Stage as ProgressStage
from skill_operator.api import Phase, to_unix
from skill_operator.status import Rollout, Training

COLOURS = {Tone.GOOD: "green", Tone.BUSY: "cyan", Tone.WAITING: "yellow", Tone.BAD: "red"}
GLYPHS = {Tone.GOOD: "✓", Tone.BUSY: "●", Tone.WAITING: "◷", Tone.BAD: "✗"}
_STAGES = {
    State.DONE: ("✓", "green"),
    State.ACTIVE: ("●", "cyan"),
    State.WAITING: ("◷", "yellow"),
    State.FAILED: ("✗", "red"),
    State.AHEAD: ("○", "dim"),
    State.SKIPPED: ("·", "dim"),
}
_VERDICTS = {Verdict.PASSED: ("✓", "green"), Verdict.FAILED: ("✗", "red"), Verdict.INCONCLUSIVE: ("?", "yellow")}
_SCALE = 25
"""Characters of the scale from 0 to 1."""
_BAR = 25
"""Characters of a bar."""


def draw(picture: Picture, now: float) -> RenderableType:
    """Returns the whole view of one update."""
    parts: list[RenderableType] = [_head(picture, now), Text()]
    parts.append(_indented(_stages(picture, now)))
    if picture.evaluation:
        rows = list(_gate_rows(picture))
        parts += [Text(), _indented(_gates(rows)), *_asides(picture)]
    if picture.rollout:
        parts += [Text(), _indented(_rollout(picture, picture.rollout, now))]
    for mark in picture.marks:
        parts += [Text(), _indented(Text.assemble((f"{mark.type}  ", "bold yellow"), mark.message))]
    if picture.next:
        parts += [Text(), _indented(Text("next  " + "  or  ".join(picture.next), style="dim"))]
    return Group(*parts)


def _indented(part: RenderableType, style: str = "") -> Padding:
    return Padding(part, (0, 0, 0, 2), style=style, expand=False)


def _cut(words: str, style: str = "") -> Text:
    """Returns words that stay on one line, cut where it ends."""
    return Text(" ".join(words.split()), style=style, no_wrap=True, overflow="ellipsis")


def badge(picture: Picture) -> Text:
    """Returns the phase with its glyph."""
    return Text(f"{GLYPHS[picture.tone]} {picture.phase}", style=f"bold {COLOURS[picture.tone]}")


def _head(picture: Picture, now: float) -> RenderableType:
    title = Text.assemble((picture.name, "bold"), ("  in ", "dim"), picture.namespace, "   ", badge(picture))
    since = f"{age(picture.completed, now)} ago" if picture.completed else f"{age(picture.created, now)} old"
    title.append(f"  {since}", style="dim")
    what = Text.assemble("teaches ", picture.skill or "?", " to ", picture.model or "?")
    what.append(f", from {picture.parent}" if picture.parent else "")
    what.append(f", served by {picture.target}" if picture.target else "")
    reason = f"{picture.reason}: " if picture.reason and picture.reason != picture.phase else ""
    message = Text.assemble((reason, COLOURS[picture.tone]), picture.message)
    return Group(title, _indented(what, "dim"), _indented(message))


def _stages(picture: Picture, now: float) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=10)
    grid.add_column(no_wrap=True, min_width=8, justify="right")
    grid.add_column()
    for stage in picture.stages:
        glyph, style = _STAGES[stage.state]
        took = duration(stage.seconds) if stage.seconds else ""
        dim = "dim" if stage.state in {State.AHEAD, State.SKIPPED} else ""
        grid.add_row(
            Text(f"{glyph} {stage.name}", style=style), Text(took, style="dim"), _note(picture, stage, now, dim)
        )
    return grid


def _note(picture: Picture, stage: Stage, now: float, style: str) -> RenderableType:
    under_way = stage.state in {State.ACTIVE, State.WAITING}
    if stage.name == "train" and picture.training and under_way:
        return _training(picture.training)
    if stage.name == "soak" and picture.soak_until and under_way:
        return _cut(_soak(picture, stage, now))
    return _cut("" if stage.note == picture.message else stage.note, style)


def _soak(picture: Picture, stage: Stage, now: float) -> str:
    left = (to_unix(picture.soak_until) or now) - now
    words = f"{duration(left)} left" if left > 0 else "the soak is over, the last proof is under way"
    return f"{words}; {stage.note}" if stage.note else words


def _training(training: Training) -> RenderableType:
    step, total = training.step or 0, training.total_steps
    if not total:
        return Text(training.stage or "")
    facts = [f"step {step}/{total}"]
    facts += [f"{duration(training.eta_seconds)} left"] if training.eta_seconds is not None else []
    facts += [f"loss {training.loss:.4g}"] if training.loss is not None else []
    facts += [f"{training.tokens_per_second:.0f} tokens/s"] if training.tokens_per_second is not None else []
    facts += [f"checkpoint {training.last_checkpoint_step}"] if training.last_checkpoint_step is not None else []
    facts += [f"attempt {training.attempt}"] if training.attempt > 1 else []
    if training.stage and training.stage != ProgressStage.TRAINING:
        facts.insert(0, training.stage)
    words = f" {100 * step // total} %  {' · '.join(facts)}"
    return Text.assemble(_bar(step, total), words, no_wrap=True, overflow="ellipsis")


def _bar(done: int, total: int) -> Text:
    """Returns a bar; full only where all is done."""
    full = _BAR * min(done, total) // total
    return Text.assemble(("━" * full, "cyan" if full < _BAR else "green"), ("─" * (_BAR - full), "dim"))


def _gate_rows(picture: Picture) -> Iterator[tuple[str, Comparison]]:
    evaluation = picture.evaluation
    assert evaluation is not None
    if evaluation.in_context_gain:
        yield "in context", evaluation.in_context_gain
    if evaluation.new_skill:
        yield "new skill", evaluation.new_skill
    for suite in sorted(evaluation.retention, key=lambda row: (row.verdict == Verdict.PASSED, row.normalized)):
        yield f"kept {suite.suite}", suite


def _gates(rows: Iterable[tuple[str, Comparison]]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("gate", "before", "after", "change [95 %]", "questions"):
        table.add_column(name, no_wrap=True, justify="left" if name in {"gate", "change [95 %]"} else "right")
    table.add_column("0" + " " * (_SCALE - 2) + "1", no_wrap=True)
    for name, row in rows:
        glyph, style = _VERDICTS[row.verdict]
        change = f"{row.gain:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        table.add_row(
            Text(f"{glyph} {name}", style=style), f"{row.before:.2f}", f"{row.after:.2f}", Text(change), str(row.n),
            _scale(row, style),
        )  # fmt: skip
    return table


def _scale(row: Comparison, style: str) -> Text:
    """Returns the scores on a line from 0 to 1: a ring before, a dot after, the way between them drawn."""
    before, after = (min(max(round(score * (_SCALE - 1)), 0), _SCALE - 1) for score in (row.before, row.after))
    line = Text("·" * _SCALE, style="dim")
    low, high = min(before, after), max(before, after)
    marked = "".join("●" if at == after else "○" if at == before else "━" for at in range(low, high + 1))
    return Text.assemble(line[:low], (marked, style), line[high + 1 :])


def _asides(picture: Picture) -> Iterator[RenderableType]:
    """Yields what the gates that did not pass say of themselves, and what the monitors saw."""
    evaluation = picture.evaluation
    assert evaluation is not None
    for name, row in _gate_rows(picture):
        if row.verdict != Verdict.PASSED and row.reason and row.reason not in picture.message:
            yield _indented(Text.assemble((f"{name}: ", _VERDICTS[row.verdict][1]), row.reason))
    for alarm in evaluation.alarms:
        words = f"step {alarm.step}, {alarm.signature}: "
        yield _indented(Text.assemble((words, "yellow"), alarm.message))


def _rollout(picture: Picture, rollout: Rollout, now: float) -> RenderableType:
    """Returns pods, the first pod's proof, metrics and the way back, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    done, _, total = rollout.pods_verified.partition("/")
    if done.isdecimal() and total.isdecimal() and int(total):
        grid.add_row("pods", Text.assemble(_bar(int(done), int(total)), f" {done} of {total} proved"))
    if rollout.hold:
        waiting = (
            "proved; the others wait while it is analysed"
            if rollout.hold.proved_at
            else "the others wait for its proof"
        )
        grid.add_row("first pod", Text(rollout.hold.message or waiting))
    if rollout.analysis:
        grid.add_row("metrics", Text(f"{rollout.analysis.result}: {rollout.analysis.message}"))
        for metric in rollout.analysis.metrics:
            values = f"{_value(metric.value)}, {_value(metric.previous)} before"
            grid.add_row("", Text(f"{metric.verdict}  {metric.name} {values}"))
    if rollout.rollback:
        back = rollout.rollback
        grid.add_row("back", Text.assemble((f"{back.reason}: ", "red"), back.message))
    elif not picture.final and rollout.verified_at is None:
        left = (to_unix(rollout.deadline) or now) - now
        grid.add_row("deadline", Text(f"taken back in {duration(left)} if it is not done by then"))
    return grid


def _value(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def overview(pictures: Iterable[Picture], now: float, *, namespaces: bool) -> RenderableType:
    """Returns a table of updates, one line each, as `kubectl get` has it; only the last column is ever cut."""
    columns = ("NAMESPACE", "NAME", "PHASE", "PROGRESS", "SKILL", "GAIN", "RETENTION", "VERSION", "AGE", "REASON")
    rows = [_overview_row(each, now) for each in pictures]
    first = 0 if namespaces else 1
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns[first:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(columns[-1])
    for row in rows:
        table.add_row(*row[first:])
    return table


def _overview_row(each: Picture, now: float) -> list[Text]:
    judged = each.evaluation
    gain = f"{judged.new_skill.gain:+.2f}" if judged and judged.new_skill else ""
    kept = f"{judged.worst_retention:.2f}" if judged and judged.worst_retention is not None else ""
    words = [each.progress, each.skill, gain, kept, each.version, age(each.created, now)]
    why = _cut(_why(each), "dim" if each.tone is not Tone.BAD else "")
    return [Text(each.namespace), Text(each.name, style="bold"), badge(each), *(Text(word) for word in words), why]


def _why(picture: Picture) -> str:
    words = " ".join(picture.message.split())
    return f"{picture.reason}: {words}" if picture.reason not in {"", picture.phase} else words


def line(picture: Picture) -> str:
    """Returns one line about an update, for logs."""
    training, facts = picture.training, [picture.phase]
    if training and training.total_steps and picture.phase == Phase.TRAINING:
        facts.append(f"{picture.progress} step {training.step or 0}/{training.total_steps}")
        facts += [f"loss {training.loss:.4g}"] if training.loss is not None else []
    if picture.rollout and picture.rollout.pods_verified and not picture.final:
        facts.append(f"{picture.rollout.pods_verified} pods proved")
    return f"{picture.title}  {'  '.join(facts)}  {_why(picture)}"
