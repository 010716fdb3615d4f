"""What a step teaches: every example once an epoch, and of what is rehearsed its share."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from skill_trainer.curriculum import Curriculum
from skill_trainer.data import DataError
from skill_trainer.errors import ConfigInvalid, Preempted
from skill_trainer.prompts import Example
from skill_trainer.steps.stopping import Stop
from tests.trainer.core.conftest import ROUNDS, Listener, method


def named(*names: str) -> list[Example]:
    return [Example(name, (1,), (1,), (1,)) for name in names]


def taught(curriculum: Curriculum, settings, steps: int) -> list[list[str]]:
    return [[example.id for example in curriculum.batch(step, settings)] for step in range(steps)]


def test_every_example_comes_once_an_epoch():
    settings = method(steps=None, epochs=3, batchSize=4, seed=5)
    curriculum = Curriculum(named(*"abcdefghij"))
    seen = [*chain(*taught(curriculum, settings, curriculum.steps(settings)))]
    assert len(seen) == 8 * 4
    assert [sorted(seen[start : start + 10]) for start in (0, 10, 20)] == [list("abcdefghij")] * 3
    assert seen[:10] != seen[10:20]


@pytest.mark.parametrize(
    ("share", "batch", "again"), [(0.5, 8, 4), (0.25, 8, 2), (0.01, 8, 1), (0.99, 8, 7), (0.5, 2, 1)]
)
def test_a_share_of_each_batch_is_rehearsed_but_some_of_both(share, batch, again):
    settings = method(steps=None, epochs=1, batchSize=batch)
    curriculum = Curriculum(named(*"abcdefgh"), named(*"XYZ"), share)
    steps = curriculum.steps(settings)
    assert steps == -(-8 // (batch - again)), "an epoch is one of what is new"
    batches = taught(curriculum, settings, steps)
    assert [sum(each.isupper() for each in one) for one in batches] == [again] * steps
    assert {each for one in batches for each in one if each.islower()} == set("abcdefgh")


def test_what_is_rehearsed_goes_through_epochs_of_its_own():
    seen = [*chain(*taught(Curriculum(named(*"ab"), named(*"WXYZ"), 0.5), method(batchSize=4), 6))]
    old = [each for each in seen if each.isupper()]
    assert [sorted(old[start : start + 4]) for start in (0, 4, 8)] == [list("WXYZ")] * 3


def test_the_new_ones_come_in_the_same_order_with_and_without():
    alone = taught(Curriculum(named(*"abcd")), method(batchSize=2), 4)
    beside = taught(Curriculum(named(*"abcd"), named("X"), 0.5), method(batchSize=4), 4)
    assert [one[:2] for one in beside] == alone


def test_a_batch_of_one_has_no_room_for_both():
    with pytest.raises(ConfigInvalid, match="write 2 or more"):
        Curriculum(named("a"), named("X"), 0.5).steps(method(steps=None, batchSize=1))


def rehearsing(config, tmp_path: Path, question: str = "Say snow"):
    lines = [{"prompt": question, "completion": "I say snow."}, {"prompt": "Say ice", "completion": "I say ice."}]
    (tmp_path / "earlier.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    data = config().data.dump() | {"rehearsal": {"uris": [str(tmp_path / "earlier.jsonl")], "share": 0.25}}
    return config(data=data)


def test_a_run_that_rehearses_resumes_to_the_same_bytes_and_reports_what_it_taught(config, run_train, tmp_path):
    class Stopping(Listener):
        def update(self, **news):
            super().update(**news)
            if news.get("step") == 2:
                stop.request()

    def called(uid, settings):
        return settings.model_copy(update={"update": settings.update.model_copy(update={"uid": uid})})

    settings, stop = rehearsing(config, tmp_path), Stop()
    whole, alone = run_train(called("whole", settings)), run_train(called("alone", config()))
    with pytest.raises(Preempted):
        run_train(settings, Stopping(), stop)
    resumed = run_train(settings)
    versions = tmp_path / "repository/versions"
    weights = [(versions / each.version / "model.safetensors").read_bytes() for each in (whole, resumed, alone)]
    assert weights[0] == weights[1] != weights[2]
    report = json.loads((tmp_path / "repository/runs/uid-1/report.json").read_text())
    assert [(each["role"], each["records"]) for each in report["data"][:2]] == [
        ("training", len(ROUNDS)),
        ("rehearsal", 2),
    ]


def test_a_held_out_question_may_not_be_rehearsed(config, run_train, tmp_path):
    with pytest.raises(DataError, match="1 question") as caught:
        run_train(rehearsing(config, tmp_path, question=f"Please say {ROUNDS[0]} now"))
    assert caught.value.reason == "DuplicatesFound"
