"""The thresholds of all monitors by tables, and which state is the best one. What provokes them: core/test_watch.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from skill_contract.evaluation import Action, Signature
from skill_contract.spec import Gates, Method
from skill_trainer.gates import LEARN_MORE
from skill_trainer.monitors import MONITORS, Watched, best_step, look, too_short_for, way_to_learn
from skill_trainer.monitors.texts import leaked_share
from skill_trainer.step_report import Probe, Series, StepReport, distinct_share, report_step

HEALTHY = StepReport(
    step=1, loss=0.5, entropy=2.0, gradient_norm=1.0, learning_rate=1e-5, mean_length=20.0, cut_share=0.0,
    empty_share=0.0, tokens_answered=80,
)  # fmt: skip


def probe(skill: int, kept: int = 20, *, leaked: float = 0.0, same: float = 0.0) -> Probe:
    """Twenty questions each, so many of them right."""
    right = {"skill": skill, "kept": kept}
    return Probe({name: tuple(place < count for place in range(20)) for name, count in right.items()}, leaked, same)


def run(*reports: StepReport) -> list[StepReport]:
    return [replace(report, step=number) for number, report in enumerate(reports, 1)]


def course(name: str, values: Sequence[float]) -> list[StepReport]:
    """A healthy run in which one figure takes these values."""
    return run(*(replace(HEALTHY, **{name: value}) for value in values))


def watched(reports: Sequence[StepReport], *, method: Any = None, gates: Any = None, **parts: Any) -> Watched:
    before = parts.pop("before", probe(0, same=1.0))
    return Watched(Method.parse(method or {}), Gates.parse(gates or {}), "skill", before, reports, **parts)


def signatures(*args: Any, **parts: Any) -> set[Signature]:
    return {alarm.signature for alarm in look(watched(*args, **parts))}


@pytest.mark.parametrize(
    ("name", "values", "signature"),
    [
        ("loss", [0.005], Signature.TEACHER_IGNORED),
        ("loss", [0.5] * 5 + [0.4 + 0.02 * step for step in range(20)], Signature.DIVERGENCE_RISING),
        ("entropy", [2.0] * 5 + [0.9] * 10, Signature.ENTROPY_COLLAPSE),
        ("mean_length", [20.0] * 5 + [11.0] * 10, Signature.LENGTH_DRIFT),
        ("mean_length", [20.0] * 5 + [33.0] * 10, Signature.LENGTH_DRIFT),
        ("thought_share", [0.8] * 5 + [0.4] * 10, Signature.THOUGHTS_FADE),
        ("cut_share", [0.0] * 5 + [0.2] * 10, Signature.ANSWERS_CUT),
        ("empty_share", [0.0] * 5 + [0.3] * 10, Signature.NO_LOSS),
        ("distinct_share", [1.0] * 5 + [0.4] * 10, Signature.REPETITION),
        ("top_share", [0.2] * 5 + [0.6] * 10, Signature.LOSS_CONCENTRATED),
        ("sampler_gap", [0.2], Signature.SAMPLER_DIFFERS),
        ("empty_share", [1.0] * 2, Signature.NO_LOSS),
    ],
)
def test_a_figure_over_its_threshold_is_seen(name, values, signature):
    assert signatures(course(name, values)) == {signature}
    assert signatures(course(name, values), gates={"monitors": {"ignore": [signature]}}) == set()
    assert signatures(course(name, values), gates={"monitors": {"mode": "Skip"}}) == set()
    assert signatures(course(name, values), method={"type": "SFT"}) == set(), "SFT samples nothing"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("loss", [0.02]),
        ("loss", [0.5] * 5 + [0.1 + 0.01 * step for step in range(20)]),  # rises, but stays under where it began
        ("loss", [0.5] * 5 + [0.9, 0.6] * 10),  # high, but not rising
        ("loss", [0.5] * 5 + [0.4 + 0.02 * step for step in range(19)]),  # one step too short
        ("entropy", [2.0] * 5 + [1.1] * 10),
        ("entropy", [2.0] * 4 + [0.1] * 10),  # too early to tell
        ("mean_length", [20.0] * 5 + [13.0] * 10),
        ("mean_length", [20.0] * 5 + [31.0] * 10),
        ("thought_share", [0.8] * 5 + [0.5] * 10),
        ("thought_share", [0.09] * 5 + [0.0] * 10),  # it hardly thought
        ("cut_share", [0.5] * 5 + [0.1] * 10),
        ("empty_share", [0.9] * 5 + [0.2] * 10),
        ("distinct_share", [1.0] * 5 + [0.55] * 10),
        ("top_share", [0.9] * 5 + [0.45] * 10),
        ("sampler_gap", [0.3] + [0.05] * 10),  # by chance, once
        ("empty_share", [1.0]),
        ("empty_share", [1.0, 0.9] * 3),
        ("distinct_share", [0.5] * 5 + [0.4] * 10),  # the parent repeats itself, too
    ],
)
def test_a_figure_within_its_threshold_is_none(name, values):
    assert signatures(course(name, values)) == set()


@pytest.mark.parametrize(
    ("divergence", "loss", "empty", "is_seen"),
    [
        ("ForwardKL", 0.009, 0.0, True),
        ("ReverseKL", 0.009, 0.0, True),
        ("JSD", 0.009, 0.0, False),  # worth four times as much
        ("JSD", 0.002, 0.0, True),
        ("ForwardKL", 0.006, 0.5, False),  # half of the answers are empty: the others say twice the loss
        ("ForwardKL", 0.0, 1.0, False),  # nothing was compared at all
    ],
)
def test_the_first_divergence_is_that_of_teacher_and_untrained_student(divergence, loss, empty, is_seen):
    reports = run(replace(HEALTHY, loss=loss, empty_share=empty))
    assert (Signature.TEACHER_IGNORED in signatures(reports, method={"sdft": {"divergence": divergence}})) is is_seen


def probed(*probes: Probe | None, loss: float = 0.5) -> list[StepReport]:
    """A run of sixteen healthy steps, then one step for each probe."""
    return run(*[HEALTHY] * 16, *(replace(HEALTHY, loss=loss, probe=each) for each in probes))


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        (probed(probe(10, 20)), set()),
        (probed(probe(10, 19)), set()),  # may be chance
        (probed(probe(10, 12)), {Signature.RETENTION_DROP}),
        (probed(probe(10, 12), probe(10, 11)), {Signature.RETENTION_DROP, Signature.FORGETTING}),
        (probed(probe(10, 12), probe(10, 19)), set()),
        (probed(probe(10, 12), probe(10, 11), None), set()),  # said at the probe, not at every step after it
        (probed(probe(10, leaked=0.025)), set()),  # one of 40
        (probed(probe(10, leaked=0.05)), {Signature.LEAKED_PHRASES}),
        (probed(replace(probe(10), teacher_drift=0.31)), {Signature.TEACHER_DRIFT}),
        (probed(replace(probe(10), teacher_drift=0.29, drift=9.0)), set()),  # the student may go: probes judge it
        (probed(probe(0, same=1.0)), set()),
        (probed(probe(0, same=1.0), probe(0, same=1.0)), {Signature.NOTHING_LEARNED}),
        (probed(probe(0, same=1.0), probe(0, same=0.99)), set()),
    ],
)
def test_what_a_probe_shows(reports, expected):
    assert signatures(reports) == expected


@pytest.mark.parametrize(
    ("late", "skill", "is_seen"), [(0.01, 6, True), (0.01, 16, False), (0.2, 6, False)]
)  # fmt: skip
def test_agreement_on_worse_and_worse_answers(late, skill, is_seen):
    reports = run(
        *[HEALTHY] * 5, replace(HEALTHY, probe=probe(18)), *[replace(HEALTHY, loss=late)] * 10,
        replace(HEALTHY, loss=late, probe=probe(skill)),
    )  # fmt: skip
    assert (Signature.FEEDBACK_COLLAPSE in signatures(reports)) is is_seen


def test_an_alarm_is_raised_once_and_warn_stops_nothing():
    reports = probed(probe(10, 12), probe(10, 11))
    alarms = {alarm.signature: alarm.action for alarm in look(watched(reports))}
    assert alarms == {Signature.RETENTION_DROP: Action.MARK, Signature.FORGETTING: Action.STOP}
    assert {alarm.action for alarm in look(watched(reports, gates={"monitors": {"mode": "Warn"}}))} == {Action.MARK}
    first = [*reports[:-1], replace(reports[-1], alarms=look(watched(reports)))]
    assert look(watched([*first, replace(reports[-1], step=99)])) == ()


def test_the_whole_evaluation_needs_no_second_probe():
    assert signatures(probed(probe(0, same=1.0)), at_end=True) == {Signature.NOTHING_LEARNED}
    assert signatures(probed(probe(0, 5)), at_end=True) == set(), "the retention gate itself says so"


def test_every_signature_of_the_contract_has_a_monitor():
    assert {monitor.signature for monitor in MONITORS} == set(Signature)


def test_a_run_in_which_nothing_carries_a_loss_ends_at_once():
    reports = course("empty_share", [1.0] * 15)
    (alarm,) = look(watched(reports[:2]))
    assert (alarm.signature, alarm.action, alarm.step) == (Signature.NO_LOSS, Action.STOP, 2)
    assert "lower method.sdft.skipTokens, to 0" in alarm.message
    assert [alarm.action for alarm in look(watched(reports))] == [Action.STOP], "said once, though both would see it"
    small = {"batchSize": 4}
    assert not look(watched(reports[:3], method=small)), "twelve answers may all be short by chance"
    assert look(watched(reports[:4], method=small))


def test_what_a_run_is_too_short_for_is_told():
    def blind(steps: int, probes: int, **parts: Any) -> dict[str, str]:
        method, gates = (
            Contract.parse(parts.get(name, {})) for name, Contract in (("method", Method), ("gates", Gates))
        )
        return too_short_for(method, gates, steps, probes)

    assert blind(25, 2) == {}
    assert blind(24, 2) == {"DivergenceRising": "25 steps"}
    assert blind(15, 1) == {"DivergenceRising": "25 steps", "Forgetting": "2 probes"}
    short = {"EntropyCollapse", "LengthDrift", "ThoughtsFade", "AnswersCut", "NoLoss", "Repetition", "LossConcentrated"}
    assert blind(14, 2).keys() == short | {"DivergenceRising", "FeedbackCollapse"}
    assert blind(4, 0, method={"type": "SFT"}) == {"RetentionDrop": "1 probe", "Forgetting": "2 probes"}
    assert blind(4, 0, gates={"monitors": {"mode": "Skip"}}) == {}
    for steps in (14, 24):  # what it is said of is what does not look
        seen = look(watched(course("entropy", [2.0] * 5 + [0.1] * (steps - 5))))
        assert {alarm.signature for alarm in seen}.isdisjoint(blind(steps, 0))


def test_the_way_out_is_that_of_the_alarm_that_tells_why():
    alarms = look(watched(run(*[replace(HEALTHY, empty_share=0.9, cut_share=0.5)] * 15)))
    assert [alarm.signature for alarm in alarms] == ["AnswersCut", "NoLoss"]
    assert way_to_learn(()) == LEARN_MORE
    assert way_to_learn(alarms).startswith("first what AnswersCut says (50% of sampled answers are cut")
    assert way_to_learn(alarms).endswith(f"), then {LEARN_MORE}")
    stopped = alarms[1].model_copy(update={"action": Action.STOP})
    assert way_to_learn((alarms[0], stopped)).startswith("NoLoss says why")
    leaked = alarms[0].model_copy(update={"signature": Signature.LEAKED_PHRASES})
    assert way_to_learn((leaked,)) == LEARN_MORE


@pytest.mark.parametrize(
    ("probes", "best"),
    [
        ([], None),
        ([probe(3), probe(9), probe(5)], 2),
        ([probe(9), probe(9)], 2),  # the later one
        ([probe(9, 20), probe(9, 19)], 1),  # unless it has lost something
        ([probe(5, 20), probe(19, 8)], 1),  # what fails the retention gate does not count
        ([probe(5, 18), probe(8, 17)], 2),  # what may be chance does
        ([probe(9, 8), probe(5, 11), probe(20, 2)], 2),  # nothing keeps: the least loss
    ],
)
def test_the_best_state_is_best_on_both_axes(probes, best):
    assert best_step(watched(run(*(replace(HEALTHY, probe=each) for each in probes)))) == best


def test_many_suites_show_together_what_none_shows_alone():
    names = [f"kept-{number}" for number in range(12)]
    before = Probe({"skill": (False,), **dict.fromkeys(names, (True,) * 4)}, 0.0, 1.0)
    after = Probe({"skill": (True,), **dict.fromkeys(names, (True, True, True, False))}, 0.0, 0.0)
    (alarm,) = look(watched(probed(after), before=before))
    assert alarm.signature is Signature.RETENTION_DROP
    assert alarm.message.startswith("all earlier suites together: 12 of 48 right answers lost")


@pytest.mark.parametrize(
    "text",
    [
        "Based on the text, it is tea.", "Following the example, I say rain.", "As shown in the example above: 4.",
        "According to the previous answer, yes.", "The example shows that it is four.", "as in your demonstration, yes",
        "In the example given, the lamp is red.",
    ],
)  # fmt: skip
def test_phrases_that_betray_a_demonstration(text):
    assert leaked_share([text, "It is tea."]) == 0.5


@pytest.mark.parametrize(
    "text",
    ["For example, three apples.", "Based on the numbers, it rises.", "An example is the whale.", "Follow me.", ""],
)
def test_phrases_that_do_not(text):
    assert leaked_share([text]) == 0


@pytest.mark.parametrize(
    ("answer", "share"), [("abcdef", 1.0), ("ab", 1.0), ("", 1.0), ("aaaaaa", 0.25), ("abcabcabc", 3 / 7)]
)
def test_share_of_distinct_pieces(answer, share):
    assert distinct_share([ord(letter) for letter in answer]) == pytest.approx(share)


def test_a_series_comes_back_from_json_as_it_was():
    answers = [(1, 2, 3, 1, 2, 3), (4,)]
    report = report_step(
        3, answers, [True, False], skip=1, loss=0.1 + 0.2, entropy=1 / 3, top=0.1, gradient_norm=1e-9,
        learning_rate=1e-5, seconds={"generate": 0.1},
    )  # fmt: skip
    assert (report.mean_length, report.cut_share, report.empty_share) == (3.5, 0.5, 0.5)
    assert report.top_share == pytest.approx(1 / 3)
    series = [
        report,
        replace(report, probe=replace(probe(3), drift=0.1), alarms=look(watched(course("loss", [0.001])))),
    ]
    assert Series.validate_json(Series.dump_json(series)) == series
