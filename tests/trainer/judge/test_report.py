"""The report says what happened, whatever texts it is given, in one file that needs nothing else."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from skill_contract.manifest import VersionRef
from skill_contract.model import ContractError
from skill_contract.spec import Gates, InContextGainGate, RetentionGate
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite, SuiteScores
from skill_trainer.gates import in_context_gain_gate, new_skill_gate, overall, retention_gates
from skill_trainer.report import (
    DataSet,
    Drift,
    Mark,
    RunReport,
    ShownAgain,
    SideBySide,
    StepPoint,
    report_page,
    side_by_side,
    write_report,
)
from skill_trainer.report.verdict import gates, headline

ROOT = Path(__file__).parents[3]
EVIL = """</style></svg><script>alert("x")</script>&<b class='c'>%1% $\\frac 'x\""""


def suite(name: str, size: int) -> Suite:
    return Suite(
        name, tuple(Record(str(n), ({"role": "user", "content": f"{name} {n}?"},), answer="a") for n in range(size))
    )


def scores(*right: bool) -> SuiteScores:
    return SuiteScores(right=right, texts=tuple("right" if each else "wrong" for each in right))


def flags(right: int, wrong: int) -> list[bool]:
    return [True] * right + [False] * wrong


def evaluated(asked: Gates, *, gain=None, skill=None, kept=None, name: str = "velmora") -> RunReport:
    """A report on results before and after, each a pair of lists; `kept` by suite."""
    evaluation = overall(
        asked,
        in_context_gain=gain and in_context_gain_gate(name, *gain, asked.in_context_gain),
        new_skill=skill and new_skill_gate(name, *skill, asked.new_skill),
        retention=retention_gates(
            {suite: pair[0] for suite, pair in (kept or {}).items()},
            {suite: pair[1] for suite, pair in (kept or {}).items()},
            asked.retention,
        ),
    )
    return RunReport(skill=name, evaluation=evaluation, gates=asked, outcome="SkillForgotten")


@pytest.fixture(scope="module")
def report() -> RunReport:
    before, after = flags(0, 50), flags(30, 20)
    kept = {EVIL: (flags(30, 20), flags(0, 50)), "qa": (after, after)}
    base = evaluated(Gates(), gain=(before, flags(50, 0)), skill=(before, after), kept=kept, name=EVIL)
    series = [
        StepPoint(step=n, loss=1 / n, entropy=math.nan, learning_rate=1e-4, scores={EVIL: 0.5, "qa": 0.4})
        for n in range(1, 25)
    ]
    answers = side_by_side(
        [Suite(EVIL, (Record("a", ({"role": "user", "content": EVIL},), answer=EVIL),))],
        {EVIL: SuiteScores(right=(False,), texts=(EVIL,))},
        {EVIL: SuiteScores(right=(True,), texts=(EVIL,))},
    )
    everywhere = {
        "description": EVIL, "created": EVIL, "code_version": EVIL, "message": EVIL, "outcome": EVIL,
        "parent": VersionRef(version="000000-abcabcabcabc", digest="sha256:" + "abcd" * 16),
        "warnings": (EVIL,), "answers": answers,
        "settings": {"method": {"type": EVIL, "list": [{EVIL: 1}]}}, "digests": {EVIL: EVIL}, "seed": 17,
        "environment": {EVIL: EVIL}, "series": tuple(series), "chosen_step": 12,
        "time_split": {EVIL: 3.5, "student": 9.0}, "marks": (Mark(step=9, monitor=EVIL, message=EVIL, stopped=True),),
        "data": (DataSet(name=EVIL, role="training", records=1200, repeated=3, grader=EVIL, prompt_tokens=54321),),
    }  # fmt: skip
    return RunReport.parse({**base.dump(), **RunReport(skill="", **everywhere).dump(), "skill": EVIL,
                            "evaluation": base.evaluation.dump()})  # fmt: skip


@pytest.fixture(scope="module")
def page(report: RunReport) -> str:
    return report_page(report)


class Outline(HTMLParser):
    """Collects the tags with their attributes and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data):
        self.text += data

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.tags]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_texts_of_data_and_models_are_only_text(page: str):
    seen = outline(page)
    assert not {"script", "iframe", "object", "link", "img", "base", "form"} & set(seen.names)
    assert not [tag for tag in seen.tags if tag[0] == "b" and tag[1].get("class") == "c"]
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert seen.names.count("style") == 1, "ours; those that matplotlib writes are taken out"
    assert seen.text.count(EVIL) >= 15


def test_policy_forbids_what_the_page_does_not_need(page: str):
    policy = next(each["content"] for tag, each in outline(page).tags if each.get("http-equiv"))
    assert policy.split("; ") == [
        "default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


def test_page_needs_no_network(page: str):
    addresses = [
        value for _, each in outline(page).tags for name, value in each.items() if name in {"src", "href", "xlink:href"}
    ]
    assert all(address.startswith("#") for address in addresses)
    assert not re.search(r"url\((?!#)|@import|@font-face|https?://(?!www\.w3\.org)", page)
    assert len(page.encode()) < 200_000


@pytest.mark.parametrize(
    "text",
    [
        "\u202eevil\u202c \u2067שלום\u2069 \u202d", "名前の評価", "😀 emoji", "a\x00b\x07c\x1b[31m",
        "%0% %9% {{ 7*7 }}", "line\n" * 2000, "x" * 10_000, "y z " * 2500, "",
    ],
)  # fmt: skip
def test_any_text_can_be_shown_and_a_page_stays_small(text: str):
    row = SideBySide(
        suite=text[:200], prompt=text, expected=text, before=text, after=text, right_before=True, right_after=False
    )
    name = text[:200] or "none"
    base = evaluated(Gates(), skill=(flags(0, 50), flags(30, 20)), kept={name: (flags(9, 0), flags(8, 1))}, name=name)
    page = report_page(base.model_copy(update={"answers": (row,) * 20, "time_split": {name: 2.0}}))
    assert len(page.encode()) < 300_000
    shown = outline(page).text
    assert text[:300].replace("\x00", "\ufffd") in shown.replace("\x00", "\ufffd")
    if len(text) > 1200:
        assert f"{len(text) - 1200:,} more characters are in report.json" in shown


def test_foreign_text_keeps_its_direction_to_itself(page: str):
    tree = outline(page).tags
    assert {each.get("dir") for tag, each in tree if each.get("class") == "text"} == {"auto"}
    assert "unicode-bidi: isolate" in style()


def test_page_shows_verdict_scores_and_reasons(page: str):
    words = outline(page).words
    for each in (
        "Rejected", "0.00 → 0.60", "95 % interval +0.46 to +0.72", "30 of 30 right answers lost", "000000-abc",
        "asked a gain of at least 0.05", "asked a drop of at most 0.02", "What to do", "1,200", "54,321",
        "step 12, whose weights were scored",
    ):  # fmt: skip
        assert each in words


@pytest.mark.parametrize(
    ("gain", "skill", "kept", "word", "sentence"),
    [
        (None, (flags(0, 50), flags(40, 10)), None, "Passed",
         "was learned: 40 of 50 questions are answered rightly, 0 before. What it forgot is unknown"),
        (None, (flags(0, 50), flags(40, 10)), {"qa": (flags(9, 1), flags(9, 1))}, "Passed",
         "No retention suite scores lower than before."),
        (None, (flags(0, 50), flags(1, 49)), None, "Rejected", "may or may not have been learned"),
        (None, (flags(20, 180), flags(10, 190)), None, "Rejected", "velmora was not learned: 10 of 200"),
        (None, (flags(0, 50), flags(40, 10)), {"qa": (flags(90, 10), flags(10, 90)), "b": (flags(9, 0), flags(9, 0))},
         "Rejected", "velmora was learned (0.00 → 0.80), but qa was forgotten: 0.90 → 0.10, 11 % of before."),
        (None, (flags(0, 50), flags(40, 10)), {"qa": (flags(50, 10), flags(49, 11))}, "Rejected",
         "qa may have been forgotten, too few questions tell"),
        ((flags(0, 200), flags(2, 198)), None, None, "Rejected", "The model cannot teach itself velmora"),
        ((flags(0, 20), flags(0, 20)), None, None, "Rejected", "Too few questions tell whether a demonstration"),
    ],
)  # fmt: skip
def test_verdict_in_one_sentence(gain, skill, kept, word: str, sentence: str):
    report = evaluated(Gates(), gain=gain, skill=skill, kept=kept)
    said = headline(report.model_copy(update={"outcome": ""}))
    assert said.word == word
    assert sentence in said.sentence
    assert ("Nothing was published" in said.consequence) is (word == "Rejected")
    assert ("Nothing was trained" in said.consequence) is (gain is not None)
    assert any(gate.advice for gate in gates(report)) is (word == "Rejected")


@pytest.mark.parametrize(("before", "after", "right"), [(100, 70, 0), (60, 40, 40), (20, 19, 5), (300, 250, 10)])
def test_settings_named_as_the_way_out_would_have_let_the_run_pass(before: int, after: int, right: int):
    old, new = flags(before, right), [*flags(after, before - after), *flags(0, right)]
    report = evaluated(Gates(), skill=(flags(0, 50), flags(40, 10)), kept={"qa": (old, new)})
    assert report.evaluation.verdict != "Passed"
    said = " ".join(gates(report)[1].advice)
    named = dict(re.findall(r"gates\.retention\.(maxDrop|minNormalized): ([\d.]+\d|\d)", said))
    assert named
    wider = Gates(retention=RetentionGate.parse({name: float(value) for name, value in named.items()}))
    assert retention_gates({"qa": old}, {"qa": new}, wider.retention)[0].verdict == "Passed"


def test_what_a_monitor_says_is_the_first_advice():
    report = evaluated(Gates(), skill=(flags(0, 200), flags(0, 200)))
    (more,) = (line for line in gates(report)[0].advice if "Train more" in line)
    mark = Mark(step=4, monitor="NoLoss", message="lower method.sdft.skipTokens")
    said = gates(report.model_copy(update={"marks": (mark,)}))[0].advice
    assert said[0] == "See to what NoLoss says of step 4: lower method.sdft.skipTokens."
    assert more in said
    stopped = report.model_copy(update={"marks": (mark.model_copy(update={"stopped": True}),)})
    assert len(gates(stopped)[0].advice) == 1, "more steps would end there, too"
    kept = mark.model_copy(update={"monitor": "LeakedPhrases"})
    assert list(gates(report.model_copy(update={"marks": (kept,)}))[0].advice) == list(gates(report)[0].advice)


def test_no_setting_is_named_where_none_would_do():
    report = evaluated(Gates(), skill=(flags(0, 50), flags(40, 10)), kept={"qa": (flags(4, 1), flags(0, 5))})
    assert not re.search(r"maxDrop: |minNormalized: ", " ".join(gates(report)[1].advice))


def test_answers_of_a_refused_run_compare_the_contexts_not_the_versions():
    asked = Gates(in_context_gain=InContextGainGate(min_gain=0.2))
    row = SideBySide(suite="s", prompt="q", expected="e", before="b", after="a", right_before=False, right_after=True)
    report = evaluated(asked, gain=(flags(0, 50), flags(1, 49)))
    words = outline(report_page(report.model_copy(update={"answers": (row,)}))).words
    for each in ("without the demonstration: wrong", "with it: right", "helped 1", "1 of 50 questions"):
        assert each in words


def test_many_suites_share_a_table_and_the_failed_ones_come_first():
    kept = {f"suite-{n:02d}": (flags(50, 0), flags(50, 0)) for n in range(30)} | {"lost": (flags(50, 0), flags(9, 41))}
    seen = outline(report_page(evaluated(Gates(), skill=(flags(0, 50), flags(40, 10)), kept=kept)))
    assert "30 more suites that were kept" in seen.text
    assert seen.text.index("kept: lost") < seen.text.index("kept: suite-00")
    assert "The first 16 of 32" in seen.words


def test_charts_take_the_pages_colours(page: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    used = set(re.findall(r"var\(--([\w-]+)\)", drawn))
    assert {"good", "bad", "series-1", "series-2", "ink"} <= used
    assert used <= set(palettes()[0])
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(url\(|href=")#\w+', "", drawn))


def test_charts_say_what_they_show(page: str):
    charts = [each for tag, each in outline(page).tags if tag == "svg"]
    assert len(charts) >= 6
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in charts)
    assert "learned" in charts[0]["aria-label"]
    assert EVIL in charts[0]["aria-label"]


def test_a_long_run_is_thinned_and_keeps_its_peaks():
    series = [StepPoint(step=n, loss=50.0 if n == 3111 else 1.0) for n in range(1, 6001)]
    page = report_page(RunReport(skill="s", series=series))
    assert len(page) < 100_000
    assert "between 1 and 50" in page


def test_ids_are_unique_and_links_lead_somewhere(page: str):
    tags = outline(page).tags
    ids = [each["id"] for _, each in tags if "id" in each]
    assert len(ids) == len(set(ids))
    targets = {each["href"].removeprefix("#") for tag, each in tags if tag == "a"}
    assert targets >= {"gates", "training", "answers", "data", "provenance", "terms"}
    assert targets <= set(ids)


def test_headings_are_in_order_and_wide_tables_scroll(page: str):
    tags = outline(page).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False))
    for place, (tag, each) in enumerate(tags):
        if tag == "table" and each.get("class") != "pairs":
            around = tags[place - 1][1]
            assert "scroll" in around["class"]
            assert around["tabindex"] == "0"
            assert around["aria-label"]


def test_each_kind_of_answer_has_its_filter(page: str):
    kinds = {each["id"].removeprefix("only-") for _, each in outline(page).tags if each.get("type") == "radio"}
    assert kinds == {"all", "learned"}
    for kind in ("lost", "wrong", "learned", "kept"):
        assert f".answers:has(#only-{kind}:checked) .answer:not(.{kind})" in style()


def style() -> str:
    return (files("skill_trainer.report") / "page/style.css").read_text()


def palettes() -> list[dict[str, str]]:
    """The colours of the light page, the dark page and the printed one."""
    light, *others = (
        dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    )
    return [light, *({**light, **other} for other in others)]


@pytest.mark.parametrize("place", range(3))
def test_colours_have_the_contrast_of_wcag_aa(place: int):
    """4.5 for text on both grounds, 3 for lines: WCAG 2.2, success criteria 1.4.3 and 1.4.11."""
    colours = palettes()[place]
    for ground in ("paper", "card"):
        for text in ("ink", "muted", "good", "bad", "unsure", "link"):
            if text in colours:
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for number in range(1, 7):
            assert contrast(colours[f"series-{number}"], colours[ground]) >= 3


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_json_has_no_nan_and_reads_back(report: RunReport, page: str, tmp_path):
    write_report(tmp_path, report)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert '"schemaVersion":1' in text
    assert RunReport.parse_json(text) == report
    assert report.series[0].entropy is None
    assert (tmp_path / "report.html").read_text() == page, "the same report gives the same page"


def test_another_schema_version_is_refused(report: RunReport):
    with pytest.raises(ContractError, match="schemaVersion"):
        RunReport.parse({**report.dump(), "schemaVersion": 2})


def test_a_run_that_ended_early_has_a_page_too():
    words = outline(report_page(RunReport(skill="velmora", outcome="Diverged", message="loss is nan at step 3"))).words
    assert "Diverged" in words
    assert "loss is nan at step 3" in words
    assert "Answers side by side" not in words
    assert "Gate by gate" not in words


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


@pytest.mark.parametrize("document", [RunReport, StepPoint, Drift, ShownAgain, Mark, DataSet, SideBySide])
def test_every_key_of_the_json_is_in_the_docs(document: type[RunReport]):
    told = set(re.findall(r"`(\w+)(?:\[\])?`", (ROOT / "docs/report.md").read_text()))
    assert {field.alias for field in document.model_fields.values()} <= told


@pytest.mark.parametrize("path", sorted((ROOT / "docs/reports").glob("*.json")), ids=lambda path: path.stem)
def test_reports_in_the_docs_are_of_this_schema_and_small(path: Path):
    page = report_page(RunReport.parse_json(path.read_bytes()))
    assert len(page.encode()) < 200_000
