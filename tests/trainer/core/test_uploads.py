"""Checkpoints travel beside training, one at a time, and what one of them meets is not lost."""

from __future__ import annotations

import threading

import pytest

from skill_store.errors import StoreUnavailable
from skill_store.repository import Repository
from skill_store.runs import Run
from skill_trainer.parallel import ALONE
from skill_trainer.steps.uploads import Uploads
from tests.trainer.core.conftest import Listener

EVERY_STEP = {"training": {"gpusPerNode": 0, "checkpoint": {"everySteps": 1, "keep": 9}}}


def test_training_goes_on_while_a_checkpoint_is_on_its_way(config, run_train, monkeypatch):
    """The upload of step 1 ends only when step 2 is done, that of the last one when answers are measured."""
    further = {1: threading.Event(), 4: threading.Event()}

    class Tells(Listener):
        def update(self, **news):
            super().update(**news)
            if news.get("step") == 2:
                further[1].set()
            if news.get("stage") == "Evaluating":
                further[4].set()

    whole = Run.save_checkpoint

    def waiting(self, step, *rest, **parts):
        assert step not in further or further[step].wait(60), f"the upload of step {step} holds everything up"
        whole(self, step, *rest, **parts)

    monkeypatch.setattr(Run, "save_checkpoint", waiting)
    listener = Tells()
    assert run_train(config(**EVERY_STEP), listener).version
    assert listener.all("last_checkpoint") == [1, 2, 3, 4]


@pytest.mark.parametrize("failing", [1, 4])
def test_an_upload_that_fails_ends_the_attempt(failing, config, run_train, monkeypatch):
    whole = Run.save_checkpoint

    def breaking(self, step, *rest, **parts):
        if step == failing:
            raise StoreUnavailable("no answer")
        whole(self, step, *rest, **parts)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "save_checkpoint", breaking)
        with pytest.raises(StoreUnavailable):
            run_train(config(**EVERY_STEP))
    run = Repository(config().model.uri).run(config().update.uid)
    assert run.get("after.json") is None, "answers of weights that no later attempt need come to"
    assert run_train(config(**EVERY_STEP)).version, "the next attempt goes on"


def test_a_fault_of_the_work_is_told_before_one_of_the_upload():
    def broken():
        raise StoreUnavailable("no answer")

    def work():
        with Uploads(ALONE) as uploads:
            uploads.start(broken)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_it_ends_when_the_last_upload_has():
    done = []
    with Uploads(ALONE) as uploads:
        uploads.start(lambda: done.append(1))
        uploads.wait()
        uploads.start(lambda: done.append(2))
    assert done == [1, 2]
