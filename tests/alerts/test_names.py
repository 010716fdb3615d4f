"""The names of all series, by promtool's linter: base units, _total for counters only, a help text for each."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.alerts.prometheus import promtool

pytestmark = pytest.mark.alerts

GENERATE = runpy.run_path(str(Path(__file__).parents[2] / "docs/generate.py"))


@pytest.mark.parametrize("page", ["operator_page", "trainer_page"])
def test_names_and_units_follow_the_conventions_of_prometheus(page: str):
    promtool("check", "metrics", stdin=GENERATE[page]())


def test_the_linter_would_notice():
    with pytest.raises(AssertionError, match="use base unit"):
        promtool("check", "metrics", stdin="# HELP a_minutes x\n# TYPE a_minutes gauge\na_minutes 1\n")
