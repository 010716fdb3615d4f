"""What runs say together: means, intervals, the retention matrix. Numbers worked out by hand or by scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from skill_contract.step import TrainConfig
from skill_trainer.compare.figures import comparison_figure, matrix_figure
from skill_trainer.compare.journal import Finished
from skill_trainer.compare.summary import Stage, matrix, mean, point, rows
from skill_trainer.compare.writing import Comparison, comparison_table, matrix_table
from skill_trainer.evaluate import SuiteScores


def state(**right: int) -> Finished:
    """The first so many of ten questions of each suite were right."""
    scores = {
        name: SuiteScores(right=tuple(place < count for place in range(10)), texts=("",) * 10)
        for name, count in right.items()
    }
    return Finished(key="k", label="l", scores=scores, seconds={"training": 5.0, "measuring": 1.0})


def stage(variant: str, skill: str, seed: int, before: Finished, after: Finished) -> Stage:
    config = TrainConfig.parse({
        "update": {"namespace": "local", "name": skill, "uid": f"{variant}/{skill}/{seed}"},
        "model": {"uri": "m"}, "skill": {"name": skill},
        "data": {"train": "t", "heldOut": {"uri": "h"}},
        "method": {"seed": seed},
        "gates": {"onInconclusive": "Accept", "retention": {"maxDrop": 0.2, "minNormalized": 0.5}},
    })  # fmt: skip
    return Stage(config, before, after)


def test_interval_of_one_group_is_students():
    found = mean([("a", 0.5), ("a", 0.7), ("a", 0.9)])
    low, high = stats.t.interval(0.95, 2, loc=0.7, scale=stats.sem([0.5, 0.7, 0.9]))
    assert (found.value, found.low, found.high, found.runs) == (pytest.approx(0.7), *map(pytest.approx, (low, high)), 3)


def test_a_harder_skill_is_no_noise():
    """Two skills far from each other, each repeated exactly but for ±0.01: the interval knows only the ±0.01."""
    easy, hard = [("easy", 0.9), ("easy", 0.92)], [("hard", 0.1), ("hard", 0.12)]
    found = mean([*easy, *hard])
    assert found.value == pytest.approx(0.51)
    # Pooled variance 0.0002, two groups of two: error = sqrt(0.0002 (1/2 + 1/2)) / 2, two degrees of freedom.
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) * 0.0002**0.5 / 2)


def test_groups_weigh_the_same_however_many_runs_they_have():
    assert mean([("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 1.0)]).value == pytest.approx(0.5)


def test_one_seed_has_no_interval():
    found = mean([("a", 0.5), ("b", 0.7)])
    assert (found.value, found.low, found.high) == (0.6, None, None)


def test_a_point_is_what_was_learned_against_the_worst_that_was_kept():
    found = point(stage("v", "new", 1, state(new=0, qa=10, poems=5), state(new=8, qa=9, poems=4)))
    assert (found.before, found.new_skill, found.retention) == (0.0, 0.8, 0.8)
    assert found.verdict == "Passed"


def test_the_gates_say_why_a_run_would_have_been_rejected():
    assert point(stage("v", "new", 1, state(new=0, qa=10), state(new=8, qa=1))).verdict == "SkillForgotten"
    assert point(stage("v", "new", 1, state(new=5, qa=10), state(new=0, qa=10))).verdict == "SkillNotLearned"


def comparison() -> list[Stage]:
    before = state(new=0, other=0, qa=10)
    learned = {("a", 1): (6, 9), ("a", 2): (8, 9), ("b", 1): (9, 1), ("b", 2): (10, 2)}
    return [
        stage(variant, skill, seed, before, state(**{skill: right, "qa": kept}))
        for (variant, seed), (right, kept) in learned.items()
        for skill in ("new", "other")
    ]


def test_rows_are_means_over_skills_then_for_each_skill_and_gains_are_paired():
    found = rows(comparison())
    assert [(row.variant, row.skill) for row in found] == [
        (variant, skill) for skill in ("", "new", "other") for variant in ("a", "b")
    ]
    a, b, *_ = found
    assert (a.new_skill.value, a.retention.value, a.new_skill_gain) == (pytest.approx(0.7), pytest.approx(0.9), None)
    assert (b.new_skill_gain.value, b.retention_gain.value) == (pytest.approx(0.25), pytest.approx(-0.75))
    # Gains of 0.3 and 0.2 in each skill: less spread than the scores themselves have, because seeds are paired.
    assert b.new_skill_gain.high - b.new_skill_gain.low < a.new_skill.high - a.new_skill.low
    assert (a.passed, b.passed, a.made) == (4, 0, 4)


def test_a_table_says_when_it_is_not_whole():
    stages = comparison()
    document = Comparison(points=tuple(map(point, stages)), rows=tuple(rows(stages)), planned=10)
    assert comparison_table(document).startswith("**8 of 10 runs are finished.**")
    assert "| b | 0.95 [0.80, 1.10] | 0.15 [-0.00, 0.30] | +0.25 [+0.10, +0.40] | -0.75 [" in comparison_table(document)


def sequence(variant: str, last: dict[str, int], seed: int = 1) -> list[Stage]:
    states = [state(one=0, two=0, qa=10), state(one=8, two=0, qa=9), state(**last)]
    skills = ("one", "two")
    return [
        stage(variant, skill, seed, before, after)
        for skill, before, after in zip(skills, states, states[1:], strict=False)
    ]


def test_the_matrix_compares_with_what_was_learned():
    found = matrix(
        "a", [sequence("a", {"one": 0, "two": 5, "qa": 9}), sequence("a", {"one": 8, "two": 9, "qa": 10}, 2)]
    )
    cells = {(cell.suite, cell.stage): cell for cell in found.cells}
    assert cells["one", 0].normalized is None
    assert cells["one", 1].normalized.value == 1
    assert cells["one", 2].normalized.value == pytest.approx(0.5)
    assert (cells["one", 2].lowest, cells["one", 2].kept) == (0.0, False)
    assert cells["two", 1].normalized is None
    assert cells["qa", 0].normalized.value == 1
    assert cells["qa", 1].normalized.value == pytest.approx(0.9)
    assert cells["qa", 1].kept
    assert found.worst.value == pytest.approx((0 + 1) / 2)
    assert found.verdicts == (("Passed", "Passed"), ("SkillForgotten", "Passed"))


def test_a_skill_that_was_never_learned_has_nothing_to_keep():
    states = [state(one=0, qa=5), state(one=0, qa=5)]
    found = matrix("a", [[stage("a", "one", 1, *states)]])
    assert all(cell.normalized is None for cell in found.cells if cell.suite == "one")


def test_matrices_are_written_and_drawn():
    found = tuple(matrix(name, [sequence(name, {"one": 4, "two": 5, "qa": 9})]) for name in ("a", "b"))
    table = matrix_table(Comparison(matrices=found, planned=2))
    assert "| one | 0.00 | 0.80 → **1.00** | 0.40 → **0.50** ▼ |" in table
    assert "### b" in table
    assert "▼" in matrix_figure(found)


def test_figures_are_the_same_bytes_each_time():
    stages = comparison()
    points, means = [point(each) for each in stages], rows(stages)
    assert comparison_figure(points, means) == comparison_figure(points, means)
    assert "prefers-color-scheme: dark" in comparison_figure(points, means)
