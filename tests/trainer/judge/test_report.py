"""The report says what happened, whatever texts it is given, in one file that needs nothing else."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from skill_contract.manifest import VersionRef
from skill_contract.spec import Gates
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite, SuiteScores
from skill_trainer.gates import in_context_gain_gate, new_skill_gate, overall, retention_gates
from skill_trainer.report import RunReport, StepPoint, report_page, side_by_side, write_report

EVIL = """</style><script>alert("x")</script>&<b>'$\\frac"""


def suite(name: str, size: int) -> Suite:
    return Suite(
        name, tuple(Record(str(n), ({"role": "user", "content": f"{name} {n}?"},), answer="a") for n in range(size))
    )


def scores(*right: bool) -> SuiteScores:
    return SuiteScores(right=right, texts=tuple("right" if each else "wrong" for each in right))


@pytest.fixture(scope="module")
def report() -> RunReport:
    gates = Gates()
    before, after = [False] * 50, [True] * 30 + [False] * 20
    evaluation = overall(
        gates,
        in_context_gain=in_context_gain_gate(EVIL, before, [True] * 50, gates.in_context_gain),
        new_skill=new_skill_gate(EVIL, before, after, gates.new_skill),
        retention=retention_gates({EVIL: after, "qa": after}, {EVIL: before, "qa": after}, gates.retention),
    )
    series = [
        StepPoint(step=n, loss=1 / n, entropy=math.nan, learning_rate=1e-4, scores={EVIL: 0.5, "qa": 0.4})
        for n in range(1, 9)
    ]
    answers = side_by_side(
        [Suite(EVIL, (Record("a", ({"role": "user", "content": EVIL},), answer=EVIL),))],
        {EVIL: SuiteScores(right=(False,), texts=(EVIL,))},
        {EVIL: SuiteScores(right=(True,), texts=(EVIL,))},
    )
    return RunReport(
        skill=EVIL,
        description=EVIL,
        parent=VersionRef(version="000000-abc", digest="sha256:abc"),
        outcome="SkillForgotten",
        evaluation=evaluation,
        settings={"method": {"type": EVIL, "list": [{EVIL: 1}]}},
        digests={EVIL: EVIL},
        code_version=EVIL,
        environment={EVIL: EVIL},
        seed=17,
        series=series,
        answers=answers,
        time_split={EVIL: 3.5, "student": 9.0},
        warnings=(EVIL,),
    )


@pytest.fixture(scope="module")
def page(report: RunReport) -> str:
    return report_page(report)


class Outline(HTMLParser):
    """Collects the tags, the addresses and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in {"src", "href", "xlink:href"} and value]

    def handle_data(self, data):
        self.text += data


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_texts_of_data_and_models_are_only_text(page: str):
    seen = outline(page)
    assert not {"script", "b", "iframe", "object", "link", "img"} & set(seen.tags)
    assert seen.tags.count("style") == 1 + seen.tags.count("svg"), "ours, and what matplotlib writes into each chart"
    assert seen.text.count(EVIL) >= 10


def test_page_needs_no_network(page: str):
    assert all(address.startswith("#") for address in outline(page).addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)
    assert len(page) < 200_000


def test_page_shows_verdict_scores_and_reasons(page: str):
    text = " ".join(outline(page).text.split())
    for words in ("Failed", "0.00 → 0.60", "95 % interval +0.46 to +0.72", "30 of 30 right answers lost", "000000-abc"):
        assert words in text


def test_charts_take_the_pages_colours(page: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert {"var(--good)", "var(--bad)", "var(--accent)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", drawn))
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(url\(|href=")#\w+', "", drawn))


def test_ids_of_the_charts_do_not_collide(page: str):
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_json_has_no_nan_and_reads_back(report: RunReport, page: str, tmp_path):
    write_report(tmp_path, report)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert RunReport.parse_json(text) == report
    assert report.series[0].entropy is None
    assert (tmp_path / "report.html").read_text() == page, "the same report gives the same page"


def test_a_run_that_ended_early_has_a_page_too():
    text = outline(report_page(RunReport(skill="velmora", outcome="Diverged"))).text
    assert "Diverged" in text
    assert "Answers side by side" not in text


def test_side_by_side_shows_lost_then_wrong_then_learned_then_kept():
    new, old = suite("new", 3), suite("old", 3)
    before = {"new": scores(False, False, True), "old": scores(True, True, False)}
    after = {"new": scores(True, False, True), "old": scores(False, True, True)}
    rows = side_by_side([new, old], before, after)
    assert [row.prompt for row in rows] == ["old 0?", "new 1?", "new 0?", "old 2?", "new 2?", "old 1?"]


@pytest.mark.parametrize(
    ("wrong", "right", "shown_wrong", "shown_right"),
    [(50, 50, 12, 8), (50, 2, 18, 2), (3, 50, 3, 17), (0, 30, 0, 20), (30, 0, 20, 0), (4, 5, 4, 5)],
)
def test_side_by_side_leaves_room_for_what_was_learned(wrong, right, shown_wrong, shown_right):
    size = wrong + right
    after = scores(*[False] * wrong, *[True] * right)
    rows = side_by_side([suite("new", size)], {"new": scores(*[False] * size)}, {"new": after})
    assert [row.right_after for row in rows] == [False] * shown_wrong + [True] * shown_right
