"""Several pods of one node on one folder: what one has fetched serves the next, and nothing in it is believed."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import pytest

from skill_contract.manifest import FetchMessage, Manifest, VersionRef
from skill_store import layout, transfer
from skill_store.errors import NotFound
from skill_store.fetch import Cache, fetch
from skill_store.landing import PARTIAL
from skill_store.repository import Repository
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, files_below, skill_store, write_model

WEIGHTS = "model.safetensors"
SIZE = 300_000
"""Of the weights; the other files are small."""


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 64 << 10)


@pytest.fixture
def repository(place: Folder | Bucket) -> Repository:
    return Repository(f"{place.uri}/m")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10 * SIZE)


def publish(repository: Repository, folder: Path, seed: int) -> VersionRef:
    return repository.publish(
        write_model(folder / f"model-{seed}", seed), Manifest(files=(), sequence=0, skill=f"{seed}")
    )


def served(repository: Repository, ref: VersionRef, to: Path, cache: Cache) -> bytes:
    """What a pod has in its volume after its fetch."""
    fetch(to, layout.version_uri(repository.uri, ref), "", cache)
    return (to / WEIGHTS).read_bytes()


def blobs(cache: Cache) -> list[str]:
    return files_below(cache.folder / "blobs")


def test_the_second_pod_asks_the_store_for_the_manifest_only(
    repository: Repository, place: Folder | Bucket, cache: Cache, tmp_path: Path
):
    ref = publish(repository, tmp_path, 1)
    first = served(repository, ref, tmp_path / "pod-1", cache)
    for file in repository.manifest(ref).files:
        place.delete(f"m/versions/{ref.version}/{file.path}")
    assert served(repository, ref, tmp_path / "pod-2", cache) == first
    assert files_below(tmp_path / "pod-2") == files_below(tmp_path / "pod-1")
    assert blobs(cache) == sorted(file.sha256 for file in repository.manifest(ref).files)
    with pytest.raises(NotFound):
        fetch(tmp_path / "pod-3", layout.version_uri(repository.uri, ref), "")


@pytest.fixture
def local(tmp_path: Path) -> Repository:
    return Repository(f"file://{tmp_path}/local/m")


def test_a_pod_s_own_copy_is_its_own(local: Repository, cache: Cache, tmp_path: Path):
    ref = publish(local, tmp_path, 1)
    first = served(local, ref, tmp_path / "pod-1", cache)
    with (tmp_path / "pod-1" / WEIGHTS).open("r+b") as weights:
        weights.write(b"scribbled by an engine")
    assert served(local, ref, tmp_path / "pod-2", cache) == first


def test_a_damaged_file_in_the_cache_is_fetched_anew(
    local: Repository, cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ref = publish(local, tmp_path, 1)
    first = served(local, ref, tmp_path / "pod-1", cache)
    digest = next(file.sha256 for file in local.manifest(ref).files if file.path == WEIGHTS)
    (cache.folder / "blobs" / digest).write_bytes(bytes(SIZE))
    assert served(local, ref, tmp_path / "pod-2", cache) == first
    assert f"{WEIGHTS} in the cache was damaged" in caplog.text
    assert served(local, ref, tmp_path / "pod-3", cache) == first


def test_the_least_recently_used_make_way(local: Repository, tmp_path: Path):
    cache = Cache(tmp_path / "cache", int(2.5 * SIZE))
    refs = [publish(local, tmp_path, seed) for seed in range(3)]
    weights = [next(file.sha256 for file in local.manifest(ref).files if file.path == WEIGHTS) for ref in refs]
    for turn, index in enumerate((0, 1, 0, 2)):
        served(local, refs[index], tmp_path / f"pod-{turn}", cache)
        for age, digest in enumerate(weights):  # as if hours lay between the turns
            if (cache.folder / "blobs" / digest).exists() and digest != weights[index]:
                stat = (cache.folder / "blobs" / digest).stat()
                os.utime(cache.folder / "blobs" / digest, (stat.st_atime - 3600, stat.st_mtime - 3600 - age))
        used = sum(path.stat().st_size for path in (cache.folder / "blobs").iterdir())
        assert used <= 2.5 * SIZE
    assert [digest in blobs(cache) for digest in weights] == [True, False, True]


def test_a_version_larger_than_the_cache_comes_without_it(
    local: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    ref = publish(local, tmp_path, 1)
    assert len(served(local, ref, tmp_path / "pod", Cache(tmp_path / "cache", SIZE // 2))) == SIZE
    assert f"{WEIGHTS} comes without the cache, in which there is no room" in caplog.text
    assert sum(path.stat().st_size for path in (tmp_path / "cache/blobs").iterdir()) < SIZE // 2


def test_a_cache_that_cannot_be_used_costs_nobody_a_pod(
    local: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ref = publish(local, tmp_path, 1)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(served(local, ref, tmp_path / "pod", Cache(tmp_path / "cache"))) == SIZE
    assert "comes without the cache" in caplog.text


def test_what_a_killed_pod_has_begun_the_next_one_finishes(local: Repository, cache: Cache, tmp_path: Path):
    ref = publish(local, tmp_path, 1)
    digest = next(file.sha256 for file in local.manifest(ref).files if file.path == WEIGHTS)
    whole = (tmp_path / "model-1" / WEIGHTS).read_bytes()
    (cache.folder / "blobs").mkdir(parents=True)
    begun = cache.folder / "blobs" / f"{digest}{PARTIAL}"
    begun.write_bytes(whole[: 64 << 10] + bytes(SIZE - (64 << 10)))
    begun.with_name(f"{digest}.parts").write_text(f"{digest}\n0 {64 << 10}\n65536 6")
    assert served(local, ref, tmp_path / "pod", cache) == whole
    assert [name for name in blobs(cache) if "." in name] == []


def test_a_limit_that_is_no_size_is_said(local: Repository, tmp_path: Path):
    ref = publish(local, tmp_path, 1)
    for limit in ("0", "-1", "lots"):
        log = tmp_path / "termination-log"
        command = ("fetch", "--to", str(tmp_path / "pod"), "--cache", str(tmp_path / "cache"), "--cache-gb", limit)
        with skill_store(
            *command, SKILL_WEIGHTS=layout.version_uri(local.uri, ref), SKILL_TERMINATION_LOG=str(log)
        ) as process:
            assert process.wait(60) == 42
        assert f"'{limit}' is no size for a cache" in FetchMessage.parse_json(log.read_bytes()).message


@pytest.mark.store
def test_six_pods_at_once_fetch_each_file_once(s3: Bucket, tmp_path: Path):
    """Processes that know nothing of each other."""
    repository = Repository(f"{s3.uri}/m")
    folder = write_model(tmp_path / "model", 7)
    (folder / WEIGHTS).write_bytes(random.Random(7).randbytes(4 << 20))
    ref = repository.publish(folder, Manifest(files=(), sequence=0))
    pods = [tmp_path / f"pod-{number}" for number in range(6)]
    command = ("fetch", "--weights", layout.version_uri(repository.uri, ref), "--cache", str(tmp_path / "cache"))
    processes = [skill_store(*command, "--cache-gb", "1", "--to", str(pod)) for pod in pods]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, said
    assert {(pod / WEIGHTS).read_bytes() for pod in pods} == {(folder / WEIGHTS).read_bytes()}
    assert blobs(Cache(tmp_path / "cache")) == sorted(file.sha256 for file in repository.manifest(ref).files)
    fetched = [line.rpartition("fetching ")[2] for text in said for line in text.splitlines() if "for all pods" in line]
    assert sorted(fetched) == sorted(
        f"{file.path} for all pods of this node" for file in repository.manifest(ref).files
    )
