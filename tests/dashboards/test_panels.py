"""What a person reads on the dashboards: words, units and links on every panel, and no panel upon another."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from charts.dashboards.__main__ import files
from charts.dashboards.overview import AT_WORK, PHASES, WAITING
from charts.dashboards.parts import OVERVIEW, UPDATE

from skill_operator.api import Phase
from tests.dashboards.panels import FILES, Panel, load, panels

DOCS = Path(__file__).parents[2] / "docs"
PANELS = [panel for name in FILES for panel in panels(name)]
EACH = pytest.mark.parametrize("panel", PANELS, ids=str)
UNSETTLED = set(Phase) - {Phase.SUCCEEDED, Phase.REJECTED, Phase.FAILED, Phase.ROLLED_BACK, Phase.REVERTED}


def test_files_are_those_of_their_source():
    written = files()
    assert set(written) == set(FILES.values())
    for path, content in written.items():
        assert path.read_text() == content, "run `make dashboards`"


def test_phases_are_those_of_an_update_that_is_not_settled():
    assert set(PHASES) == UNSETTLED
    assert {*AT_WORK.split("|"), *WAITING.split("|"), "RollingBack"} == UNSETTLED


@EACH
def test_panel_says_what_it_shows_and_where_to_read_on(panel: Panel):
    assert len(panel.raw["description"]) > 20
    assert panel.raw["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel.targets
    assert all(target.legend for target in panel.targets if len(panel.targets) > 1 and panel.kind != "table")
    assert panel.kind == "table" or panel.defaults["unit"]
    assert {target.legend for target in panel.targets if target.format == "heatmap"} <= {"{{le}}"}, (
        "Grafana sorts by it"
    )
    for link in panel.raw.get("links", ()):
        page, _, anchor = link["url"].removeprefix("${runbooks}docs/").partition("#")
        headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}, link


@pytest.mark.parametrize("name", FILES)
def test_no_panel_lies_upon_another_and_rows_are_full(name: str):
    taken: dict[tuple[int, int], str] = {}
    for each in load(name)["panels"]:
        place = each["gridPos"]
        columns, lines = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        for cell in itertools.product(columns, lines):
            assert cell not in taken, f"{each['title']} lies upon {taken[cell]}"
            taken[cell] = each["title"]
    height = 1 + max(line for _, line in taken)
    assert set(taken) == set(itertools.product(range(24), range(height))), "there is a hole"


@pytest.mark.parametrize(("name", "uid"), [("overview", OVERVIEW), ("update", UPDATE)])
def test_dashboard_can_be_found_and_is_not_edited_by_hand(name: str, uid: str):
    document = load(name)
    assert (document["uid"], document["editable"], document["tags"]) == (uid, False, ["skillupdate"])
    ids = [each["id"] for each in document["panels"]]
    assert len(ids) == len(set(ids))
    assert "/home/" not in json.dumps(document)


def test_a_name_in_the_table_leads_to_that_update():
    (table,) = [panel for panel in PANELS if (panel.dashboard, panel.kind) == ("overview", "table")]
    links = [
        entry["value"][0]["url"]
        for override in table.raw["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "links"
    ]
    asked = {each["name"] for each in load("update")["templating"]["list"]}
    (url,) = links
    assert url.startswith(f"/d/{UPDATE}?")
    assert set(re.findall(r"var-(\w+)=", url)) <= asked
