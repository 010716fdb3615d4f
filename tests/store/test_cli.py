"""The command line by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.manifest import Manifest
from skill_store import layout
from skill_store.cli import main
from skill_store.repository import Repository
from tests.seaweedfs import Bucket
from tests.store.conftest import Cli, Folder


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below call `main` here, where its signal handler and its logging have no business."""
    monkeypatch.setattr("skill_store.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr("skill_store.cli.logging.basicConfig", lambda **_: None)


def learn(repository: Repository, model: Path) -> None:
    skill = Comparison(
        suite="tarn", before=0.1, after=0.9, gain=0.8, low=0.7, high=0.9, n=100, normalized=9, verdict=Verdict.PASSED
    )
    evaluation = Evaluation(new_skill=skill, worst_retention=0.987, verdict=Verdict.PASSED)
    head = repository.head()
    manifest = Manifest(
        files=(), sequence=1, parent=head.ref, skill="tarn", evaluation=evaluation, created="2026-11-25T12:00:00+00:00"
    )
    repository.move_head(repository.publish(model, manifest), expected=head)


def test_import_head_ls_and_verify(place: Folder | Bucket, model: Path, capsys: pytest.CaptureFixture[str]):
    uri = f"{place.uri}/m"
    assert main(["import", str(model), uri]) == 0
    repository = Repository(uri)
    base = repository.head().ref
    assert capsys.readouterr().out.strip() == layout.version_uri(uri, base)
    learn(repository, model)
    assert main(["head", uri]) == 0
    assert capsys.readouterr().out.strip() == layout.version_uri(uri, repository.head().ref)
    assert main(["ls", uri]) == 0
    title, new, old = capsys.readouterr().out.splitlines()
    assert title.split() == ["VERSION", "SKILL", "SCORE", "RETENTION", "SIZE", "CREATED", "STATE"]
    assert new.split() == [
        repository.head().version,
        "tarn",
        "0.10",
        "->",
        "0.90",
        "0.987",
        "300.1",
        "kB",
        "2026-11-25T12:00:00+00:00",
        "head",
    ]
    assert old.split() == [base.version, "(base)", "300.1", "kB"]
    assert main(["verify", uri]) == 0
    place.write(f"m/versions/{base.version}/tokenizer.json", b"{}")
    capsys.readouterr()
    assert main(["verify", uri]) == 42
    new, old = capsys.readouterr().out.splitlines()
    assert "ok, 4 files" in new
    assert old.startswith(f"{base.version}  DigestMismatch: ")
    assert "tokenizer.json" in old
    assert main(["verify", f"{uri}/versions/{repository.head().version}"]) == 0


def test_an_empty_repository_has_no_head_to_print(place: Folder | Bucket, capsys: pytest.CaptureFixture[str]):
    assert main(["head", f"{place.uri}/m"]) == 42
    assert "skill-store import BASE" in capsys.readouterr().err


def test_help_names_every_command(cli: Cli):
    code, out, _ = cli("--help")
    assert code == 0
    assert all(
        name in out
        for name in ("fetch", "promote", "import", "head", "ls", "log", "diff", "gc", "verify", "AWS_ENDPOINT_URL_S3")
    )


def test_a_mistyped_command_is_a_usage_error(cli: Cli):
    assert cli("fletch")[0] == 2
