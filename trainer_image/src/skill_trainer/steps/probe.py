"""A probe: a few questions of all suites, the same ones each time, asked while a model is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from skill_contract.step import TrainConfig
from skill_trainer.evaluate import Suite, SuiteScores
from skill_trainer.monitors.texts import leaked_share
from skill_trainer.step_report import Probe

OTHERS = 4
"""All suites but the new skill's have at most this many times its questions together, and at least LEAST each."""
LEAST = 4


LEAST_PROBES = 3
"""Of a run, where it has the steps for them: two in a row to see what stays lost, and one more to choose from."""
LEAST_STEPS = 2
"""Between two probes."""


def steps_between(config: TrainConfig, total: int) -> int:
    """Returns after how many steps a run of `total` steps is probed each time; 0 for never.

    One too short for a second probe has nothing to choose from.
    """
    monitors = config.gates.monitors
    every = min(monitors.every_steps, max(LEAST_STEPS, total // LEAST_PROBES))
    return every if monitors.mode != "Skip" and every < total else 0


def num_probes(config: TrainConfig, total: int) -> int:
    """Returns how many probes a run of `total` steps has, the one at its end among them."""
    every = steps_between(config, total)
    return math.ceil(total / every) if every else 0


def probe_places(suites: Sequence[Suite], questions: int) -> dict[str, list[int]]:
    """Returns which questions of each suite are asked, evenly spread over it; the new skill's suite comes first."""
    others = max(LEAST, min(questions, OTHERS * questions // max(1, len(suites) - 1)))
    return {suite.name: spread(len(suite.records), questions if suite is suites[0] else others) for suite in suites}


def spread(size: int, most: int) -> list[int]:
    """Returns at most so many places of a suite, evenly spread over it."""
    number = min(size, most)
    return [place * size // number for place in range(number)]


def probe_suites(suites: Sequence[Suite], places: Mapping[str, Sequence[int]]) -> tuple[Suite, ...]:
    """Returns the suites with the questions at `places` only."""
    return tuple(
        Suite(suite.name, tuple(suite.records[place] for place in places[suite.name]), suite.grader) for suite in suites
    )


def some_scores(scores: Mapping[str, SuiteScores], places: Mapping[str, Sequence[int]]) -> dict[str, SuiteScores]:
    """Returns the scores of the questions at `places` out of those of whole suites."""
    return {name: scores[name].at(chosen) for name, chosen in places.items()}


def make_probe(
    before: Mapping[str, SuiteScores], after: Mapping[str, SuiteScores], *, drift: float | None = None,
    teacher_drift: float | None = None,
) -> Probe:  # fmt: skip
    """Returns the probe of the answers `after`, beside the parent's to the same questions, and what was measured."""
    texts = [text for scores in after.values() for text in scores.texts]
    old = [text for suite in after for text in before[suite].texts]
    return Probe(
        right={suite: scores.right for suite, scores in after.items()},
        leaked=leaked_share(texts),
        same=sum(one == other for one, other in zip(old, texts, strict=True)) / len(texts),
        drift=drift,
        teacher_drift=teacher_drift,
    )
