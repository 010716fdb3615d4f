"""What a report says of what was measured beside the gates."""

from __future__ import annotations

import re

from skill_trainer.report import Drift, RunReport, ShownAgain, StepPoint, report_page
from skill_trainer.report.charts import curves


def words(report: RunReport) -> str:
    """The page without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", report_page(report)).split())


def test_figures_are_told_and_that_nothing_was_decided_by_them():
    drift = [Drift(version=f"00000{number}-abcabcabcabc", nats=0.2, questions=32) for number in (1, 0)]
    again = ShownAgain(n=50, before=40, after=30, low=-0.35, high=-0.05, seconds=1.0)
    said = words(RunReport(skill="x", drift=tuple(drift), shown_again=again))
    assert "drift from 000001-abcabcabcabc 0.200 nats per token, on its answers to 32 questions" in said
    assert "drift from 000000-abcabcabcabc , the first of its lineage whose answers are known 0.200" in said
    assert "40 → 30 of 50 right; change −0.20, 95 % interval −0.35 to −0.05" in said
    assert "Nothing was decided by these" in said
    assert "Measured beside" not in words(RunReport(skill="x"))


def test_student_and_averaged_teacher_share_a_curve():
    points = (StepPoint(step=1), StepPoint(step=2, drift=0.2, teacher_drift=0.02), StepPoint(step=3, drift=0.3))
    (both,) = curves(RunReport(skill="x", series=points))
    assert (both.title, both.legend) == ("Drift, nats per token", ("student", "teacher"))
    assert "0.2 at step 2, 0.3 at step 3" in both.svg
    assert "0.02 at step 2, 0.02 at step 2" in both.svg
    (one,) = curves(RunReport(skill="x", series=(StepPoint(step=1, drift=0.1),)))
    assert one.legend == ("student",)
