"""Checkpoints: only complete ones count, and no more stay than were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from skill_store.errors import DigestMismatch, NotFound
from skill_store.repository import Repository
from skill_store.runs import Run
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, files_below, write_model

PREFIX = "m/runs/1234/"


@pytest.fixture
def run(place: Folder | Bucket) -> Run:
    return Repository(f"{place.uri}/m").run("1234")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "state", seed=5)
    (folder / "optimizer").mkdir()
    (folder / "optimizer/state.safetensors").write_bytes(b"moments")
    (folder / "empty").touch()
    return folder


def test_a_run_begins_with_nothing(run: Run):
    assert run.latest_checkpoint() is None
    assert run.get("result.json") is None


def test_small_files_are_replaced(run: Run):
    run.put("result.json", b"1")
    run.put("result.json", b"2")
    run.put("report/index.html", b"3")
    assert (run.get("result.json"), run.get("report/index.html")) == (b"2", b"3")
    assert run.latest_checkpoint() is None


def test_what_is_kept_stays(run: Run):
    assert run.keep("origin.json", b"1") == b"1"
    assert run.keep("origin.json", b"2") == b"1"
    assert run.get("origin.json") == b"1"


def test_what_is_saved_is_loaded(run: Run, state: Path, tmp_path: Path):
    run.save_checkpoint(50, state, keep=2)
    run.load_checkpoint(run.latest_checkpoint(), tmp_path / "loaded")
    assert files_below(tmp_path / "loaded") == files_below(state)
    for name in files_below(state):
        assert (tmp_path / "loaded" / name).read_bytes() == (state / name).read_bytes()


def test_saving_and_loading_tell_how_far_they_are(run: Run, state: Path, tmp_path: Path):
    """A checkpoint of hundreds of gigabytes takes longer than a trainer may be silent."""
    size = sum((state / name).stat().st_size for name in files_below(state))
    for move in (
        lambda progress: run.save_checkpoint(50, state, 2, progress),
        lambda progress: run.load_checkpoint(50, tmp_path / "loaded", progress),
    ):
        told: list[tuple[int, int]] = []
        move(lambda done, total, told=told: told.append((done, total)))
        assert told[-1] == (size, size)


def test_the_newest_are_kept(run: Run, place: Folder | Bucket, state: Path):
    run.put("metrics.jsonl", b"{}")
    for step in (50, 100, 150):
        run.save_checkpoint(step, state, keep=2)
    assert run.checkpoints() == [100, 150]
    assert {key.split("/")[3] for key in place.keys(PREFIX)} == {"step-000100", "step-000150", "metrics.jsonl"}


def test_a_checkpoint_without_manifest_is_none(run: Run, place: Folder | Bucket, state: Path, tmp_path: Path):
    run.save_checkpoint(50, state, keep=2)
    run.save_checkpoint(100, state, keep=2)
    place.delete(f"{PREFIX}step-000100/.skill/manifest.json")
    assert run.latest_checkpoint() == 50
    with pytest.raises(NotFound):
        run.load_checkpoint(100, tmp_path / "loaded")
    run.save_checkpoint(150, state, keep=2)
    assert run.checkpoints() == [50, 150]
    assert not place.keys(f"{PREFIX}step-000100/"), "leftovers of a broken upload are removed"


def test_a_run_that_went_back_forgets_what_came_later(run: Run, state: Path):
    for step in (50, 100):
        run.save_checkpoint(step, state, keep=1)
    run.save_checkpoint(75, state, keep=1)
    assert run.checkpoints() == [75]


def test_a_finished_run_keeps_no_checkpoints(run: Run, place: Folder | Bucket, state: Path):
    run.put("result.json", b"{}")
    for step in (50, 100):
        run.save_checkpoint(step, state, keep=2)
    run.remove_checkpoints()
    assert run.checkpoints() == []
    assert run.get("result.json") == b"{}"
    run.remove_checkpoints()


def test_saving_a_step_again_mixes_nothing(run: Run, place: Folder | Bucket, state: Path, tmp_path: Path):
    run.save_checkpoint(50, state, keep=2)
    (state / "empty").unlink()
    write_model(state, seed=6)
    run.save_checkpoint(50, state, keep=2)
    run.load_checkpoint(50, tmp_path / "loaded")
    assert files_below(tmp_path / "loaded") == files_below(state)


def test_a_damaged_checkpoint_is_refused_by_file(run: Run, place: Folder | Bucket, state: Path, tmp_path: Path):
    run.save_checkpoint(50, state, keep=2)
    place.write(f"{PREFIX}step-000050/optimizer/state.safetensors", b"Moments")
    with pytest.raises(DigestMismatch) as refused:
        run.load_checkpoint(50, tmp_path / "loaded")
    assert refused.value.file == "optimizer/state.safetensors"
    place.write(f"{PREFIX}step-000050/.skill/manifest.json", b"{")
    with pytest.raises(DigestMismatch, match=r"manifest\.json is damaged"):
        run.load_checkpoint(50, tmp_path / "loaded")
