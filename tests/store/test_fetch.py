"""The init container in a process of its own: what it brings, what it says, and every way to fail."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skill_contract.manifest import FetchMessage, Manifest, VersionRef
from skill_store import fetch as module
from skill_store import layout
from skill_store.errors import NoSpace, StoreUnavailable
from skill_store.repository import Repository
from tests.seaweedfs import Bucket, free_ports
from tests.store.conftest import Cli, Folder, files_below, publish_child, skill_store, write_model

MODEL_FILES = [".skill/manifest.json", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def repository(place: Folder | Bucket, model: Path) -> Repository:
    repository = Repository(f"{place.uri}/m")
    repository.import_base(str(model))
    return repository


@pytest.fixture
def base(repository: Repository) -> VersionRef:
    return repository.head().ref


def pinned(repository: Repository, ref: VersionRef) -> str:
    return layout.version_uri(repository.uri, ref)


Fetch = Callable[..., tuple[int, FetchMessage]]


@pytest.fixture
def fetch(cli: Cli, tmp_path: Path) -> Fetch:
    """Runs the init container on the folder `weights`; returns its exit code and termination message."""

    def run(weights: str = "", default: str = "", **environment: str) -> tuple[int, FetchMessage]:
        log = tmp_path / "termination-log"
        variables = {"SKILL_WEIGHTS": weights, "SKILL_DEFAULT": default, "SKILL_TERMINATION_LOG": str(log)}
        code, _, err = cli("fetch", "--to", str(tmp_path / "weights"), **variables, **environment)
        message = FetchMessage.parse_json(log.read_bytes())
        assert message.message in err
        return code, message

    return run


def test_the_annotation_s_version_becomes_a_plain_folder(
    fetch: Fetch, repository: Repository, base: VersionRef, model: Path, tmp_path: Path
):
    child = publish_child(repository, write_model(tmp_path / "trained", seed=2), base)
    code, message = fetch(weights=pinned(repository, child), default=repository.uri)
    assert code == 0
    assert (message.outcome, message.version, message.digest) == ("Fetched", child.version, child.digest)
    assert message.uri == f"{repository.uri}/versions/{child.version}"
    assert message.size_bytes == sum(file.size for file in repository.manifest(child).files)
    got = tmp_path / "weights"
    assert files_below(got) == sorted([*MODEL_FILES, ".skill/golden.json", ".skill/suites/tarn.jsonl"])
    assert (got / "model.safetensors").read_bytes() == (tmp_path / "trained/model.safetensors").read_bytes()


@pytest.mark.parametrize("told", [True, False])
def test_name_in_the_pods_paths_has_to_be_the_versions_own(
    fetch: Fetch, repository: Repository, base: VersionRef, *, told: bool
):
    weights, right, wrong = (pinned(repository, base), base.version, "") if told else ("", "", base.version)
    code, message = fetch(weights=weights, default=repository.uri, SKILL_VERSION=wrong)
    assert (code, message.outcome) == (42, "Failed")
    assert f"calls its version {wrong!r} (SKILL_VERSION) and is told {right!r}" in message.message
    assert fetch(weights=weights, default=repository.uri, SKILL_VERSION=right)[0] == 0


@pytest.mark.parametrize("form", ["repository", "version", "pinned"])
def test_without_annotation_the_default_is_served(
    fetch: Fetch, repository: Repository, base: VersionRef, tmp_path: Path, form: str
):
    version = f"{repository.uri}/versions/{base.version}/"
    default = {"repository": repository.uri, "version": version, "pinned": pinned(repository, base)}[form]
    code, message = fetch(default=default)
    assert (code, message.digest) == (0, base.digest)
    assert files_below(tmp_path / "weights") == MODEL_FILES


def test_another_version_in_the_folder_is_replaced_to_the_last_file(
    fetch: Fetch, repository: Repository, base: VersionRef, tmp_path: Path
):
    child = publish_child(repository, write_model(tmp_path / "trained", seed=2), base)
    assert fetch(weights=pinned(repository, child))[0] == 0
    config = (tmp_path / "weights/config.json").stat().st_ino
    (tmp_path / "weights/model.safetensors.partial").write_text("of a fetch that was killed")
    assert fetch(weights=pinned(repository, base))[0] == 0
    assert files_below(tmp_path / "weights") == MODEL_FILES
    assert (tmp_path / "weights/config.json").stat().st_ino == config, "equal files are kept"
    assert not (tmp_path / "weights/.skill/suites").exists()


def peak_bytes(*arguments: str, **environment: str) -> int:
    """Returns the most memory that a command had, after it has ended well."""
    with skill_store(*arguments, **environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.stderr.read()
    return usage.ru_maxrss * 1024


def repository_with_head(repository: Repository, ref: VersionRef) -> str:
    repository.move_head(ref, expected=None)
    return repository.uri


def killed_in_the_middle(folder: Path, weights: str) -> Path:
    """Returns where a fetch was killed that had brought at least one range; one that was faster is given another go."""
    for number in range(10):
        to = folder / f"weights-{number}"
        journal = to / "model.safetensors.parts"
        with skill_store("fetch", "--to", str(to), SKILL_WEIGHTS=weights) as process:
            with contextlib.suppress(FileNotFoundError):  # renamed: it was faster
                while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 1):
                    time.sleep(0.001)
            process.kill()
        if (to / "model.safetensors.partial").exists():
            return to
    raise AssertionError("the fetch was always done before it could be killed")


@pytest.mark.store
def test_a_container_that_is_killed_goes_on_where_it_was_in_little_memory(s3: Bucket, tmp_path: Path):
    """Killed for good in the middle of the weights; that no range comes twice is tested with the transfer."""
    folder = write_model(tmp_path / "large", seed=3)
    (folder / "model.safetensors").write_bytes(random.Random(3).randbytes(1 << 20) * 160)  # three ranges of 64 MiB
    repository = Repository(f"{s3.uri}/m")
    ref = repository.publish(folder, Manifest(files=(), sequence=0))
    to = killed_in_the_middle(tmp_path, pinned(repository, ref))
    before = (to / "model.safetensors.partial").stat().st_ino
    small = peak_bytes("head", repository_with_head(repository, ref))
    large = peak_bytes("fetch", "--to", str(to), SKILL_WEIGHTS=pinned(repository, ref))
    assert large - small < 80e6, "of 168 MB, only some pieces of 512 KiB are in memory at once"
    assert (to / "model.safetensors").stat().st_ino == before, "the same file was filled up"
    assert files_below(to) == MODEL_FILES


def test_a_folder_of_somebody_else_is_not_cleared(
    fetch: Fetch, repository: Repository, base: VersionRef, tmp_path: Path
):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/thesis.tex").write_text("irreplaceable")
    code, message = fetch(weights=pinned(repository, base))
    assert (code, message.reason) == (42, "FetchFailed")
    assert "thesis.tex" in message.message
    assert files_below(tmp_path / "weights") == ["thesis.tex"]


def test_flipped_bytes_are_a_digest_mismatch_with_the_file(
    fetch: Fetch, repository: Repository, base: VersionRef, place: Folder | Bucket, tmp_path: Path
):
    assert fetch(weights=pinned(repository, base))[0] == 0
    key = f"m/versions/{base.version}/model.safetensors"
    place.write(key, bytes(300_000))
    (tmp_path / "weights/model.safetensors").write_bytes(b"")
    code, message = fetch(weights=pinned(repository, base))
    assert (code, message.outcome, message.reason) == (42, "Failed", "DigestMismatch")
    assert (message.file, message.digest) == ("model.safetensors", base.digest)
    assert ".skill/manifest.json" not in files_below(tmp_path / "weights"), "the folder cannot pass for a version"


def test_a_manifest_that_is_not_the_annotation_s_is_refused(fetch: Fetch, repository: Repository, base: VersionRef):
    other = base.model_copy(update={"digest": base.digest[:-1] + ("0" if base.digest[-1] != "0" else "1")})
    code, message = fetch(weights=pinned(repository, other))
    assert (code, message.reason, message.file) == (42, "DigestMismatch", ".skill/manifest.json")


def test_a_version_that_is_gone_is_not_found(fetch: Fetch, repository: Repository):
    ghost = VersionRef(version="000009-000000000000", digest="sha256:" + "0" * 64)
    code, message = fetch(weights=pinned(repository, ghost))
    assert (code, message.reason) == (42, "NotFound")


def test_an_annotation_without_digest_is_refused(fetch: Fetch, repository: Repository, base: VersionRef):
    code, message = fetch(weights=f"{repository.uri}/versions/{base.version}")
    assert (code, message.reason) == (42, "FetchFailed")
    assert "@sha256:" in message.message


def test_too_small_a_volume_is_seen_before_the_download(
    repository: Repository, base: VersionRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    manifest = repository.manifest(base)
    huge = tuple(file.model_copy(update={"size": 1 << 60}) for file in manifest.files)
    with pytest.raises(NoSpace, match=r"free.*are needed") as failed:
        module.make_room(tmp_path / "weights", manifest.model_copy(update={"files": huge}))
    assert module.failure(failed.value, pinned(repository, base), "").reason == "NoSpace"


def test_a_volume_that_is_read_only_is_said(fetch: Fetch, repository: Repository, base: VersionRef, tmp_path: Path):
    (tmp_path / "weights").write_text("a file where the folder should be")
    code, message = fetch(weights=pinned(repository, base))
    assert (code, message.reason) == (42, "FetchFailed")
    assert "cannot be written" in message.message


@pytest.mark.store
def test_wrong_credentials_are_access_denied(fetch: Fetch, s3: Bucket, model: Path):
    repository = Repository(f"{s3.uri}/m")
    ref = repository.import_base(str(model))
    code, message = fetch(weights=pinned(repository, ref), AWS_SECRET_ACCESS_KEY="wrong")
    assert (code, message.reason) == (42, "AccessDenied")
    assert "wrong" not in message.message


@pytest.mark.store
def test_a_missing_bucket_is_not_waited_for(fetch: Fetch, s3: Bucket):
    code, message = fetch(default="s3://no-such-bucket/m")
    assert (code, message.reason) == (42, "NotFound")


def test_a_store_that_is_away_fails_to_be_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (port,) = free_ports(1)
    away = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    for name, value in away.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("skill_store.retry.FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(StoreUnavailable) as failed:
        module.fetch(tmp_path / "weights", "", "s3://bucket/m")
    assert failed.value.retriable
    assert module.failure(failed.value, "", "s3://bucket/m").reason == "FetchFailed"


def test_it_waits_for_the_first_version_and_says_so(place: Folder | Bucket, model: Path, tmp_path: Path):
    repository = Repository(f"{place.uri}/m")
    log = tmp_path / "termination-log"
    process = skill_store(
        *("fetch", "--to", str(tmp_path / "weights"), "--default", repository.uri), SKILL_TERMINATION_LOG=str(log)
    )
    with process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        line = process.stderr.readline()
        assert "waiting" in line
        assert repository.uri in line
        ref = repository.import_base(str(model))
        process.stderr.read()
        watchdog.cancel()
    assert process.returncode == 0
    assert FetchMessage.parse_json(log.read_bytes()).digest == ref.digest


def test_sigterm_ends_a_waiting_fetch_at_once(tmp_path: Path):
    with skill_store("fetch", "--to", str(tmp_path / "weights"), SKILL_WEIGHTS="", SKILL_DEFAULT="") as process:
        assert "no annotation" in process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=10) == 143


def test_an_endpoint_that_is_no_address_is_the_users_mistake(fetch: Fetch):
    code, message = fetch(default="s3://models/m", AWS_ENDPOINT_URL_S3="minio:9000")
    assert (code, message.reason) == (42, "FetchFailed")
    assert "Invalid endpoint: minio:9000" in message.message
    assert "AWS_ENDPOINT_URL_S3" in message.message


def test_a_fault_that_nobody_thought_of_is_said_too(fetch: Fetch, tmp_path: Path):
    head = tmp_path / "head.json"
    head.symlink_to(head)
    code, message = fetch(default=str(tmp_path))
    assert (code, message.outcome, message.reason) == (1, "Failed", "FetchFailed")
    assert "OSError" in message.message


@pytest.mark.store
def test_kserve_gives_what_and_where_to_as_arguments(cli: Cli, s3: Bucket, model: Path, tmp_path: Path):
    repository = Repository(f"{s3.uri}/m")
    base = repository.import_base(str(model))
    log, source = tmp_path / "termination-log", repository.uri.replace("s3://", "skill://")
    told = {"SKILL_WEIGHTS": "", "SKILL_TERMINATION_LOG": str(log)}
    assert cli("storage-initializer", source, str(tmp_path / "models"), **told)[0] == 0
    assert FetchMessage.parse_json(log.read_bytes()).digest == base.digest
    child = publish_child(repository, model, base)
    told["SKILL_WEIGHTS"] = pinned(repository, child)
    assert cli("storage-initializer", source, str(tmp_path / "models"), **told)[0] == 0
    assert FetchMessage.parse_json(log.read_bytes()).digest == child.digest
