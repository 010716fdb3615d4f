"""What a whole run writes into its report."""

from __future__ import annotations

import pytest

from skill_trainer.report import RunReport


@pytest.fixture
def report(config, run_train, tmp_path) -> RunReport:
    run_train(config())
    return RunReport.parse_json((tmp_path / "repository/runs/uid-1/report.json").read_bytes())


def test_report_tells_the_data_the_series_and_where_all_came_from(report: RunReport):
    train, held_out, *kept = report.data
    assert (train.role, train.records, train.repeated) == ("training", 5, 0)
    assert train.longest_teacher_prompt > train.longest_prompt > 0
    assert (held_out.role, held_out.records, held_out.name) == ("held-out", 5, "say")
    assert {each.role for each in kept} <= {"retention", "inherited"}
    assert all(each.prompt_tokens >= each.longest_prompt >= 10 for each in report.data)
    assert [point.step for point in report.series] == [1, 2, 3, 4]
    assert all(0 <= (point.cut_share or 0) <= 1 and point.cut_share is not None for point in report.series)
    assert all(0 < (point.distinct_share or 0) <= 1 for point in report.series)
    assert all(0 < (point.top_share or 0) <= 1 for point in report.series)
    assert all(point.sampler_gap is not None and point.sampler_gap < 1e-4 for point in report.series)
    assert 0.9 < report.weights["moved"] <= 1
    assert 0 < report.weights["distance"] < 1
    assert not [warning for warning in report.warnings if "other numbers" in warning]
    assert report.created[:2] == "20"
    assert report.parent is not None
    assert report.parent.version.startswith("000000-")
    assert set(report.digests) >= {"parent", "data", "content", "prompt template"}


def test_a_question_that_stands_there_twice_is_counted(config, run_train, tmp_path):
    settings = config()
    test = tmp_path / "test.jsonl"
    test.write_text(test.read_text() + test.read_text().splitlines()[0].replace("Please", "please ") + "\n")
    run_train(settings)
    report = RunReport.parse_json((tmp_path / "repository/runs/uid-1/report.json").read_bytes())
    assert next(each for each in report.data if each.role == "held-out").repeated == 1
