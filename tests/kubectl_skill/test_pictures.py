"""Every moment of every story of an update's life can be looked at: on a terminal, in a pipe, as a document."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import cache

import pytest
from rich.console import Console, RenderableType

from kubectl_skill.drawing import GLYPHS, draw, line, overview
from kubectl_skill.picture import Picture, Tone, clean, picture
from kubectl_skill.stages import State
from kubectl_skill.times import duration
from skill_operator.api import Phase
from tests.operator import raw, test_picture
from tests.operator.raw import NOW, Raw
from tests.operator.seen import training
from tests.operator.sim import Sim

LATER = NOW + 600


@cache
def lives() -> tuple[Sim, ...]:
    """All stories of the operator's picture, and one that is suspended."""
    suspended = test_picture.in_kueue()
    suspended.body["spec"]["suspend"] = True
    suspended.settle()
    return (*(story() for story in test_picture.STORIES), suspended)


def bodies() -> Iterator[Raw]:
    """The last moment of each phase of each life."""
    for life in lives():
        yield from {body["status"]["phase"]: body for body in life.shown}.values()


def at(phase: Phase, sim: Sim) -> Picture:
    """The last moment of a life in a phase."""
    found = [body for body in sim.shown if body["status"]["phase"] == phase]
    return picture(found[-1], LATER)


def text(renderable: RenderableType, width: int = 160, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(renderable)
    return console.file.getvalue()


def states(seen: Picture) -> dict[str, str]:
    return {stage.name: stage.state.value for stage in seen.stages}


def test_every_phase_is_drawn():
    seen = set()
    for body in bodies():
        shown = picture(body, LATER)
        drawn = text(draw(shown, LATER))
        seen.add(shown.phase)
        assert f"{GLYPHS[shown.tone]} {shown.phase}" in drawn
        assert " ".join(shown.message.split())[:60] in " ".join(drawn.split())
        assert shown.phase in line(shown)
        assert "\x1b" not in drawn
    assert seen == set(Phase)


def test_colours_are_an_addition_and_respect_no_color(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = at(Phase.REJECTED, test_picture.rejected())
    assert "\x1b[1;31m" in text(draw(shown, LATER), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = text(draw(shown, LATER), force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", plain)
    assert "✗ Rejected" in plain


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_fits_the_terminal(width: int):
    for life in lives():
        shown = picture(life.shown[-1], LATER)
        assert max(len(each) for each in text(draw(shown, LATER), width).splitlines()) <= width


def test_document_is_json_and_says_what_is_drawn():
    shown = at(Phase.ROLLED_BACK, test_picture.rolled_back())
    document = json.loads(json.dumps(shown.dump()))
    assert (document["phase"], document["tone"], document["reason"]) == ("RolledBack", "Bad", "DigestMismatch")
    assert document["stages"][4] == {
        "name": "roll out", "state": "Failed", "seconds": 0, "note": "DigestMismatch, every pod is back"
    }  # fmt: skip
    assert document["next"][0] == "kubectl skill explain refund-tool -n team"


def test_stages_of_a_good_life():
    done = at(Phase.SUCCEEDED, test_picture.reverted())
    assert set(states(done).values()) == {State.DONE}
    back = at(Phase.REVERTED, test_picture.reverted())
    assert (back.tone, states(back)["revert"]) == (Tone.GOOD, State.DONE)


@pytest.mark.parametrize(
    ("story", "phase", "expected"),
    [
        (test_picture.rejected, Phase.REJECTED, {"train": "Done", "gates": "Failed", "publish": "Skipped"}),
        (test_picture.in_line, Phase.QUEUED, {"check": "Waiting", "train": "Ahead"}),
        (test_picture.in_line, Phase.FAILED, {"check": "Failed", "train": "Skipped"}),
        (test_picture.approved_and_served, Phase.AWAITING_APPROVAL, {"publish": "Done", "approve": "Waiting"}),
        (test_picture.approved_and_served, Phase.ROLLING_OUT, {"approve": "Done", "roll out": "Active"}),
        (test_picture.held_for_a_person, Phase.ROLLING_OUT, {"roll out": "Failed", "soak": "Ahead"}),
        (test_picture.applied, Phase.SUCCEEDED, {"train": "Skipped", "promote": "Done"}),
        (test_picture.too_late, Phase.FAILED, {"publish": "Done", "promote": "Failed"}),
        (test_picture.pod_lost_in_the_soak, Phase.SOAKING, {"roll out": "Done", "soak": "Active"}),
        (test_picture.revert_refused, Phase.SUCCEEDED, {"promote": "Done", "revert": "Failed"}),
    ],
)
def test_stages(story: test_picture.Story, phase: Phase, expected: dict[str, str]):
    seen = states(at(phase, story()))
    assert {name: seen[name] for name in expected} == expected


def test_training_shows_how_far_it_is():
    sim = Sim(raw.update())
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.pod("train", raw.running())
    training(sim)
    sim.settle()
    shown = picture(sim.body, LATER)
    drawn = text(draw(shown, LATER))
    assert "46 %  step 60/130 · 1 min left · loss 0.5 · 900 tokens/s · checkpoint 50" in drawn
    assert drawn.count("━") == 11
    assert "Training  46% step 60/130  loss 0.5" in line(shown)


def test_foreign_words_cannot_act_on_the_terminal():
    body = test_picture.rejected().body
    nasty = "\x1b]0;owned\x07 \x1b[2J[bold red]not markup[/] \u202egnorw\r\nnext"
    body["status"]["conditions"][0]["message"] = nasty
    body["status"]["evaluation"]["retention"][0] |= {"reason": nasty, "verdict": "Failed"}
    shown = picture(body, LATER)
    drawn = text(draw(shown, LATER)) + text(overview([shown], LATER, namespaces=True)) + line(shown)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", drawn)
    assert "[bold red]not markup[/]" in drawn


def test_clean_leaves_words_alone():
    assert clean({"a": ["Übung → 0.9\n", 1, None]}) == {"a": ["Übung → 0.9\n", 1, None]}


def test_broken_or_foreign_status_is_shown_as_far_as_it_can_be():
    body = raw.update(method={"batchSize": "many"})
    assert picture(body, LATER).message == "no operator has taken note of it yet"
    body["status"] = {"phase": "Dancing", "training": {"step": "x"}, "conditions": "none"}
    assert "Pending" in text(draw(picture(body, LATER), LATER))


def test_overview_has_a_line_each():
    pictures = [picture(life.shown[-1], LATER) for life in lives()]
    header, *rows = text(overview(pictures, LATER, namespaces=True), 300).splitlines()
    assert header.split()[0] == "NAMESPACE"
    assert len(rows) == len(pictures)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (12000, "3 h 20 min"), (36000, "10 h"),
     (90000, "1 d 1 h")],
)  # fmt: skip
def test_duration(seconds: float, words: str):
    assert duration(seconds) == words
