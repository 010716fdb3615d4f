"""The promote step as the operator starts it: a process with SKILL_CONFIG, an exit code and a termination message."""

from __future__ import annotations

import functools
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from skill_contract.manifest import GoldenSet, Manifest, VersionRef
from skill_contract.outcome import Outcome, Result
from skill_contract.step import Pod, PromoteConfig, Retention, UpdateIdentity
from skill_store.promote import promote
from skill_store.prove import prove
from skill_store.repository import Repository
from tests.cluster.pki import Authority
from tests.store.conftest import Cli, golden, publish_child
from tests.store.engine import Engine, candidate, parent

UPDATE = UpdateIdentity(namespace="team", name="tarn", uid="1234")


@pytest.fixture
def repository(tmp_path: Path, model: Path) -> Repository:
    """In a folder: what the step asks of a store is tested on SeaweedFS elsewhere."""
    repository = Repository(f"file://{tmp_path}/repository")
    repository.import_base(str(model))
    return repository


@pytest.fixture
def child(repository: Repository, model: Path) -> VersionRef:
    return publish_child(repository, model, repository.head().ref)


def config(repository: Repository, to: VersionRef, *urls: str, after: str | None = None) -> PromoteConfig:
    return PromoteConfig(
        update=UPDATE,
        model_uri=repository.uri,
        version=to.version,
        digest=to.digest,
        parent_digest=after or repository.head().digest,
        pods=tuple(Pod(name=f"pod-{number}", url=url) for number, url in enumerate(urls)),
    )


Run = Callable[..., tuple[int, Outcome]]


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> Run:
    """Runs the step; returns its exit code and termination message."""

    def run(document: str, **variables: str) -> tuple[int, Outcome]:
        log = tmp_path / "termination-log"
        code, out, _ = cli("promote", SKILL_CONFIG=document, SKILL_TERMINATION_LOG=str(log), **variables)
        outcome = Outcome.parse_json(log.read_bytes())
        assert json.loads(out) == outcome.dump()
        return code, outcome

    return run


def test_proved_pods_move_the_head(run: Run, repository: Repository, child: VersionRef):
    before = repository.head()
    with Engine(candidate).serve() as engine:
        code, outcome = run(config(repository, child, engine.url, engine.url).dump_json())
    assert (code, outcome.outcome, outcome.reason) == (0, Result.SUCCEEDED, "Promoted")
    assert (outcome.version, outcome.digest) == (child.version, child.digest)
    assert [pod["matched"] for pod in outcome.details["pods"]] == [8, 8]
    head = repository.head()
    assert (head.ref, head.parent, head.update) == (child, before.ref, UPDATE)


def test_the_step_may_be_repeated(repository: Repository, child: VersionRef):
    document = config(repository, child)
    assert promote(document)[0].reason == "Promoted"
    head = repository.head()
    outcome, code = promote(document)
    assert (outcome.outcome, outcome.reason, code) == (Result.SUCCEEDED, "Promoted", 0)
    assert repository.head() == head


def test_a_pod_with_old_weights_rejects_with_evidence(run: Run, repository: Repository, child: VersionRef):
    before = repository.head()
    with Engine(candidate).serve() as new, Engine(parent).serve() as old:
        code, outcome = run(config(repository, child, new.url, old.url).dump_json())
    assert (code, outcome.outcome, outcome.reason) == (0, Result.REJECTED, "OutputMismatch")
    assert "pod pod-1 answered 0 of 8" in outcome.message
    assert "'new answer 0'" in outcome.message
    assert repository.head() == before


def test_a_first_pod_is_proved_and_the_head_stays(run: Run, repository: Repository, child: VersionRef):
    before = repository.head()
    for said, result, reason in ((candidate, "Succeeded", "Proved"), (parent, "Rejected", "OutputMismatch")):
        with Engine(said).serve() as engine:
            asked = config(repository, child, engine.url).model_copy(update={"prove_only": True})
            code, outcome = run(asked.dump_json())
        assert (code, outcome.outcome, outcome.reason) == (0, result, reason)
        assert repository.head() == before


def test_a_head_moved_by_somebody_else_stays(run: Run, repository: Repository, child: VersionRef, model: Path):
    document = config(repository, child)
    other = publish_child(repository, model, repository.head().ref, "oake")
    repository.move_head(other, expected=repository.head())
    code, outcome = run(document.dump_json())
    assert (code, outcome.outcome, outcome.reason) == (42, Result.FAILED, "HeadMoved")
    assert other.version in outcome.message
    assert repository.head().ref == other


def test_an_unreachable_engine_is_to_be_tried_again(
    repository: Repository, child: VersionRef, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("skill_store.promote.prove", functools.partial(prove, patience_seconds=0))
    before = repository.head()
    outcome, code = promote(config(repository, child, "http://127.0.0.1:9"))
    assert (outcome.outcome, outcome.reason, code) == (Result.FAILED, "EngineUnreachable", 1)
    assert repository.head() == before


def test_the_way_back_is_proved_too(repository: Repository, child: VersionRef):
    """`spec.revert`: the base has no golden prompts of its own, its child's tell what it answers."""
    base = repository.head().ref
    assert promote(config(repository, child))[1] == 0
    with Engine(candidate).serve() as new:
        outcome, _ = promote(config(repository, base, new.url))
    assert outcome.reason == "OutputMismatch"
    with Engine(parent).serve() as old:
        outcome, _ = promote(config(repository, base, old.url))
    assert outcome.reason == "Promoted"
    assert repository.head().ref == base


def test_the_key_of_an_engine_comes_from_the_environment(repository: Repository, child: VersionRef, run: Run):
    with Engine(candidate, key="s3cret").serve() as engine:
        document = config(repository, child, engine.url).dump_json()
        code, outcome = run(document)
        assert (code, outcome.reason, repository.head().ref == child) == (1, "EngineUnreachable", False)
        code, outcome = run(document, ENGINE_API_KEY="s3cret\n")
    assert (code, outcome.reason, repository.head().ref) == (0, "Promoted", child)


def test_whom_an_engine_has_to_show_itself_to_be_comes_from_the_environment(
    repository: Repository, child: VersionRef, run: Run, tmp_path: Path
):
    authority = Authority.create(tmp_path / "authority")
    pair = authority.issue("engine", "engine", hosts=["support-llm.team.svc"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    given = {"ENGINE_API_KEY": "s3cret", "ENGINE_CA": authority.pair.certificate.read_text()}
    with Engine(candidate, key="s3cret", tls=tls).serve() as engine:
        document = config(repository, child, engine.url).dump_json()
        code, outcome = run(document, **given, ENGINE_NAME="other.team.svc")
        assert (code, outcome.reason, repository.head().ref == child) == (1, "EngineUnreachable", False)
        code, outcome = run(document, **given, ENGINE_NAME="support-llm.team.svc\n")
    assert (code, outcome.reason, repository.head().ref) == (0, "Promoted", child)


def test_a_version_is_looked_up_without_touching_the_head(repository: Repository, child: VersionRef, run: Run):
    head = repository.head()
    asked = config(repository, child).model_copy(update={"prove_only": True})
    code, outcome = run(asked.dump_json())
    assert (code, outcome.reason, outcome.version, outcome.digest) == (0, "Found", child.version, child.digest)
    Path(repository.uri.removeprefix("file://"), "versions", child.version, ".skill/manifest.json").unlink()
    code, outcome = run(asked.dump_json())
    assert (code, outcome.reason) == (42, "VersionMissing")
    assert repository.head() == head


def test_a_version_without_golden_prompts_is_not_taken_on_trust(repository: Repository, model: Path):
    (model / ".skill").mkdir(exist_ok=True)
    manifest = Manifest(files=(), sequence=1, parent=repository.head().ref)
    for text in (None, '{"prompts": []}', "{"):
        if text:
            (model / ".skill/golden.json").write_text(text)
        ref = repository.publish(model, manifest)
        outcome, code = promote(config(repository, ref, "http://127.0.0.1:9"))
        assert (outcome.outcome, code) == (Result.FAILED, 42), text
        assert "golden" in outcome.message


def test_a_proof_by_prompts_that_tell_nothing_says_so(repository: Repository, model: Path):
    (model / ".skill").mkdir(exist_ok=True)
    alike = GoldenSet(prompts=tuple(each.model_copy(update={"parent_text": each.text}) for each in golden(4).prompts))
    (model / ".skill/golden.json").write_text(alike.dump_json())
    ref = repository.publish(model, Manifest(files=(), sequence=1, parent=repository.head().ref))
    with Engine(candidate).serve() as engine:
        asked = config(repository, ref, engine.url)
        first, last = promote(asked.model_copy(update={"prove_only": True}))[0], promote(asked)[0]
    assert [each.reason for each in (first, last)] == ["Proved", "Promoted"]
    for outcome in (first, last):
        assert "; 0 of 4 golden prompts tell old weights from new: only digests show" in outcome.message
        assert outcome.details["pods"][0]["telling"] == 0


def test_a_version_that_is_not_there_fails_for_good(run: Run, repository: Repository):
    ghost = VersionRef(version="000001-000000000000", digest="sha256:" + "0" * 64)
    code, outcome = run(config(repository, ghost).dump_json())
    assert (code, outcome.reason) == (42, "VersionMissing")


def test_a_configuration_that_cannot_be_read_is_said(run: Run):
    code, outcome = run('{"modelUri": 1}')
    assert (code, outcome.outcome, outcome.reason) == (42, Result.FAILED, "ConfigInvalid")
    assert "SKILL_CONFIG" in outcome.message


def test_golden_prompts_of_these_tests_tell_the_versions_apart():
    assert all(prompt.text != prompt.parent_text for prompt in golden().prompts)


def test_a_fault_that_nobody_thought_of_is_said_too(
    run: Run, repository: Repository, child: VersionRef, tmp_path: Path
):
    settings = config(repository, child).dump_json()
    head = tmp_path / "repository/head.json"
    head.unlink()
    head.symlink_to(head)
    code, outcome = run(settings)
    assert (code, outcome.outcome, outcome.reason) == (1, Result.FAILED, "UnknownFault")
    assert "OSError" in outcome.message


def test_promotion_removes_what_is_older_than_what_is_kept(run: Run, repository: Repository, model: Path):
    refs = [repository.head().ref]
    for skill in "abcd":
        refs.append(publish_child(repository, model, refs[-1], skill))
        repository.move_head(refs[-1], expected=repository.head())
    for file in (Path(repository.uri.removeprefix("file://"))).rglob("*"):
        os.utime(file, (0, 0))
    last = publish_child(repository, model, refs[-1], "e")
    settings = config(repository, last).model_copy(
        update={"retention": Retention(keep_versions=3, in_use=(refs[2].version,))}
    )
    code, outcome = run(settings.dump_json())
    assert (code, outcome.reason) == (0, "Promoted")
    assert "1 old versions were removed" in outcome.message
    assert [ref for ref, _ in repository.lineage()] == [last, refs[4], refs[3], refs[2], refs[0]]
    assert run(settings.dump_json())[1].message == f"{last.version} is the head already"


def test_a_retention_that_fails_is_said_and_promotes_all_the_same(
    repository: Repository, child: VersionRef, tmp_path: Path
):
    settings = config(repository, child).model_copy(update={"retention": Retention(keep_versions=2)})
    (tmp_path / "repository/versions/000009-0123456789ab/.skill").mkdir(parents=True)
    (tmp_path / "repository/versions/000009-0123456789ab/.skill/manifest.json").write_text("{}")
    outcome, code = promote(settings)
    assert (outcome.outcome, code) == (Result.SUCCEEDED, 0)
    assert "old versions were not removed: nothing is removed while a manifest is damaged" in outcome.message
    assert repository.head().ref == child
