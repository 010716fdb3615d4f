"""What `watch` shows: a live view on a terminal, a line for each change anywhere else, documents for programs."""

from __future__ import annotations

import argparse
import io
import itertools
import json

import pytest
from rich.console import Console

from kubectl_skill.command import Session
from kubectl_skill.drawing import draw
from kubectl_skill.following import Screen
from kubectl_skill.picture import picture
from tests.operator import test_picture


def session(**console: object) -> tuple[Session, io.StringIO]:
    written = io.StringIO()
    made = Session(argparse.Namespace())
    made.__dict__["out"] = Console(file=written, width=120, **console)  # where `cached_property` keeps it
    return made, written


def shown_on(session: Session, *, as_json: bool) -> None:
    with Screen(session, as_json=as_json) as screen:
        for body in test_picture.rejected().shown:
            for _ in range(2):
                screen.show([body], lambda now, body=body: draw(picture(body, now), now))


def test_line_for_each_change_and_no_other():
    made, written = session()
    shown_on(made, as_json=False)
    lines = written.getvalue().splitlines()
    assert lines[0].startswith("team/refund-tool  Pending")
    assert lines[-1].startswith("team/refund-tool  Rejected  SkillForgotten: ")
    assert len(lines) == len(set(lines)) > 3
    assert "\x1b" not in written.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_document_for_each_change_whatever_the_clock_says(terminal: bool):
    made, written = session(force_terminal=terminal, color_system=None)
    shown_on(made, as_json=True)
    documents = [json.loads(line) for line in written.getvalue().splitlines()]
    assert documents[-1]["phase"] == "Rejected"
    assert all(first != second for first, second in itertools.pairwise(documents))


def test_terminal_has_one_view_that_is_drawn_anew():
    made, written = session(force_terminal=True)
    shown_on(made, as_json=False)
    drawn = written.getvalue()
    assert "\x1b[2K" in drawn, "nothing was drawn over"
    last = drawn.rpartition("\x1b[2K")[2]
    assert "Rejected" in last
    assert "Pending" not in last
    assert drawn.rstrip().endswith("\x1b[?25h"), "the cursor is not given back"
