"""Old versions: what stays, how the rest goes, and that nobody who works beside it loses anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skill_contract.manifest import Manifest, VersionRef
from skill_store import layout, retention
from skill_store.catalogue import Catalogue
from skill_store.errors import BeingRemoved, HeadMoved, StoreError, VersionMissing
from skill_store.fetch import fetch
from skill_store.folder import FolderStore
from skill_store.repository import Repository
from skill_store.retention import Policy, Removal, rehearse, remove
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, publish_child
from tests.store.stepped import Actor, run_in_turns

NOTHING_IS_YOUNG = 0.0
KEEP_TWO = Policy(keep=2, grace_seconds=NOTHING_IS_YOUNG, run_grace_seconds=NOTHING_IS_YOUNG)


def grow(repository: Repository, model: Path, skills: str) -> list[VersionRef]:
    """Promotes one version after the other; returns all, the base first."""
    refs = [repository.head().ref]
    for skill in skills:
        refs.append(publish_child(repository, model, refs[-1], skill))
        repository.move_head(refs[-1], expected=repository.head())
    return refs


@pytest.fixture
def repository(place: Folder | Bucket, model: Path) -> Repository:
    repository = Repository(f"{place.uri}/m")
    repository.import_base(str(model))
    return repository


def republish(repository: Repository, model: Path, manifest: Manifest) -> VersionRef:
    """Publishes a version of `grow` again, from the folder as it was then."""
    for suite in (model / ".skill/suites").iterdir():
        if f".skill/suites/{suite.name}" not in {file.path for file in manifest.files}:
            suite.unlink()
    return repository.publish(model, manifest.model_copy(update={"files": ()}))


def standing(repository: Repository) -> list[str]:
    versions = Catalogue.read(repository.uri).versions.values()
    return sorted(version.name for version in versions if version.stands)


def gone(removal: Removal) -> dict[str, str]:
    return {each.name: each.why for each in removal.removed}


def why(removal: Removal, name: str) -> str:
    return next(each.why for each in removal.rulings if each.name == name)


def test_old_versions_go_and_the_rest_is_whole(repository: Repository, model: Path, place: Folder | Bucket):
    base, a, b, c, d = grow(repository, model, "abcd")
    rehearsed = rehearse(repository.uri, KEEP_TWO)
    assert standing(repository) == sorted(ref.version for ref in (base, a, b, c, d)), "a rehearsal changes nothing"
    removal = remove(repository.uri, KEEP_TWO)
    assert set(gone(removal)) == {a.version, b.version} == {each.name for each in rehearsed.rulings if not each.stays}
    assert why(removal, d.version) == "is the head"
    assert why(removal, c.version) == "is one of the newest 2"
    assert why(removal, base.version) == "is the base"
    for ref in (base, c, d):
        repository.verify(ref)
    assert [ref for ref, _ in repository.lineage()] == [d, c, base], "the lineage leads past what is gone"
    left = place.keys(f"m/versions/{a.version}/")
    assert left == [f"m/versions/{a.version}/.skill/manifest.json"]
    assert remove(repository.uri, KEEP_TWO).removed == (), "and a second time there is nothing to do"


def test_who_asks_for_a_removed_version_is_told_so(repository: Repository, model: Path, tmp_path: Path):
    _, a, *_ = grow(repository, model, "abcd")
    remove(repository.uri, KEEP_TWO)
    with pytest.raises(VersionMissing, match=r"was removed on 2.*is older than what is kept.*skill-store ls"):
        fetch(tmp_path / "weights", layout.version_uri(repository.uri, a), "")
    with pytest.raises(VersionMissing, match="was removed"):
        repository.move_head(a, expected=repository.head())
    manifest, tombstone = repository.record(a)
    assert (manifest.skill, tombstone.done) == ("a", True)


def test_what_was_removed_can_be_published_again(repository: Repository, model: Path):
    _, a, *_ = grow(repository, model, "abcd")
    files = {a: repository.manifest(a)}
    remove(repository.uri, KEEP_TWO)
    assert republish(repository, model, files[a]) == a
    assert repository.verify(a) == files[a]


def test_who_needs_a_version_keeps_it(repository: Repository, model: Path, place: Folder | Bucket):
    _, a, b, c, d, _, f = grow(repository, model, "abcdef")
    candidate = publish_child(repository, model, f, "candidate")
    stray = publish_child(repository, model, b, "stray")
    place.write("m/runs/1234/origin.json", f'{{"parent": {b.dump_json()}, "settings": ""}}'.encode())
    place.write("m/runs/1234/step-000050/weights", b"w")
    place.write("m/runs/5678/origin.json", f'{{"parent": {c.dump_json()}, "settings": ""}}'.encode())
    place.write("m/runs/5678/result.json", b"{}")
    policy = Policy(keep=2, in_use=frozenset({a.version}), updates=frozenset({"1234"}), grace_seconds=0)
    removal = remove(repository.uri, policy)
    assert set(gone(removal)) == {c.version, d.version, stray.version}
    assert why(removal, a.version) == "is in use"
    assert why(removal, b.version) == "run 1234 trains from it"
    assert why(removal, candidate.version) == "could be promoted: its parent is the head"
    repository.move_head(candidate, expected=repository.head())


def test_what_was_written_lately_stays(repository: Repository, model: Path):
    grow(repository, model, "abcd")
    removal = remove(repository.uri, Policy(keep=2, grace_seconds=3600))
    assert not removal.removed
    assert "was written a short time ago" in {each.why for each in removal.rulings}


def test_without_a_number_only_leftovers_go(repository: Repository, model: Path, place: Folder | Bucket):
    refs = grow(repository, model, "abcd")
    place.write("m/versions/000009-0123456789ab/model.safetensors", b"of an upload that was killed")
    place.write("m/.probe/0123/alone", b"of a probe that was killed")
    removal = remove(repository.uri, Policy(grace_seconds=0))
    assert gone(removal) == {
        "000009-0123456789ab": "was never completed",
        ".probe/0123/alone": "is left of a test of the store",
    }
    assert standing(repository) == sorted(ref.version for ref in refs)


def test_checkpoints_of_runs_that_nobody_goes_on_with_go(repository: Repository, place: Folder | Bucket):
    for uid in ("there", "gone", "ended"):
        for name in ("step-000050/.skill/manifest.json", "step-000050/w.safetensors", "metrics.jsonl", "report.html"):
            place.write(f"m/runs/{uid}/{name}", b"x")
    place.write("m/runs/ended/result.json", b"{}")
    patient = Policy(updates=frozenset({"there"}), grace_seconds=0, run_grace_seconds=3600)
    assert gone(remove(repository.uri, patient)) == {"ended": "the run has its result"}
    hasty = Policy(updates=frozenset({"there"}), grace_seconds=0, run_grace_seconds=0)
    assert gone(remove(repository.uri, hasty)) == {"gone": "the run was abandoned"}
    assert repository.run("there").latest_checkpoint() == 50
    assert place.keys("m/runs/gone/") == ["m/runs/gone/metrics.jsonl", "m/runs/gone/report.html"], "its record stays"


def test_less_than_two_versions_leave_none_to_go_back_to():
    with pytest.raises(StoreError, match="keep 2 or more"):
        Policy(keep=1)


def test_a_damaged_manifest_stops_everything(repository: Repository, model: Path, place: Folder | Bucket):
    _, a, *_ = grow(repository, model, "abcd")
    place.write(f"m/versions/{a.version}/.skill/manifest.json", b"{}")
    before = place.keys("m/")
    with pytest.raises(StoreError, match=f"nothing is removed while a manifest is damaged.*{a.version}"):
        remove(repository.uri, KEEP_TWO)
    assert place.keys("m/") == before


def test_a_lineage_that_was_broken_by_hand_keeps_what_came_before(
    repository: Repository, model: Path, place: Folder | Bucket
):
    _, a, b, *_ = grow(repository, model, "abcd")
    for key in place.keys(f"m/versions/{b.version}/"):
        place.delete(key)
    removal = remove(repository.uri, KEEP_TWO)
    assert not removal.removed
    assert "the lineage is broken" in why(removal, a.version)


# One place is enough for what follows: the other store is asked the same questions, and its answers are tested above.


@pytest.fixture
def local(tmp_path: Path, model: Path) -> Repository:
    repository = Repository(f"file://{tmp_path}/local/m")
    repository.import_base(str(model))
    return repository


def condemned(repository: Repository, ref: VersionRef) -> None:
    """Leaves a version as a removal does that is killed before it deletes a file."""
    store = FolderStore(Path(repository.uri.removeprefix("file://")))
    catalogue = Catalogue.read(repository.uri)
    ruling = next(each for each in retention.rule(catalogue, KEEP_TWO, time.time()) if each.name == ref.version)
    assert retention._condemn(store, catalogue.versions[ref.version], ruling)


@pytest.mark.parametrize("files_are_gone", [False, True])
def test_a_removal_that_died_is_finished_by_the_next(
    local: Repository, model: Path, monkeypatch: pytest.MonkeyPatch, files_are_gone: bool
):
    _, a, b, *_ = grow(local, model, "abcd")
    manifest = local.manifest(a)
    condemned(local, a)
    if files_are_gone:
        FolderStore(Path(local.uri.removeprefix("file://"))).delete([f"versions/{a.version}/model.safetensors"])
    assert set(gone(remove(local.uri, KEEP_TWO))) == {b.version}, "one that is at work is left alone"
    with pytest.raises(BeingRemoved, match="publish again"):
        republish(local, model, manifest)
    monkeypatch.setattr(retention, "ABANDONED_SECONDS", 0)
    assert set(gone(remove(local.uri, KEEP_TWO))) == {a.version}
    assert local.record(a)[1].done


def test_what_a_removal_that_died_had_condemned_is_given_back_to_who_needs_it(
    local: Repository, model: Path, monkeypatch: pytest.MonkeyPatch
):
    _, a, *_ = grow(local, model, "abcd")
    condemned(local, a)
    monkeypatch.setattr(retention, "ABANDONED_SECONDS", 0)
    needed = Policy(keep=2, in_use=frozenset({a.version}), grace_seconds=0)
    remove(local.uri, needed)
    local.verify(a)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of six versions, their models, an upload that broke off, and a candidate of an older head."""
    folder = tmp_path_factory.mktemp("grown")
    repository = Repository(f"file://{folder}/m")
    for name in ("base", *"abcd"):
        model = write_small(folder / name)
        if name == "base":
            repository.import_base(str(model))
        else:
            head = repository.head()
            repository.move_head(publish_child(repository, model, head.ref, name), expected=head)
    lineage = [ref for ref, _ in repository.lineage()]
    publish_child(repository, write_small(folder / "side"), lineage[1], "side")
    broken = publish_child(repository, write_small(folder / "broken"), lineage[0], "broken")
    (folder / f"m/versions/{broken.version}/.skill/manifest.json").unlink()
    return folder


def write_small(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(64))
    return folder


def check_every_version(uri: str) -> None:
    """What has a manifest has all its files, at every instant: else somebody would be given half a version."""
    halves = [
        version.name for version in Catalogue.read(uri).versions.values() if version.stands and not version.is_whole
    ]
    assert not halves


def teach(repository: Repository, folder: Path) -> VersionRef:
    """Trains from the head, as often as somebody is faster."""
    while True:
        head = repository.head()
        try:
            ref = publish_child(repository, folder, head.ref, "new")
            repository.move_head(ref, expected=head)
        except (HeadMoved, VersionMissing, BeingRemoved):
            continue
        return ref


def go_back(repository: Repository) -> None:
    head = repository.head()
    with contextlib.suppress(HeadMoved, VersionMissing):
        repository.move_head(head.parent, expected=head)


def promote_side(repository: Repository, side: VersionRef) -> str:
    """Promotes the candidate of an older head as soon as that is the head again, as after a revert."""
    parent = repository.record(side)[0].parent
    for _ in range(8):
        head = repository.head()
        if head.ref == parent:
            try:
                repository.move_head(side, expected=head)
            except (HeadMoved, VersionMissing) as error:
                return error.reason
            return "promoted"
    return "never its turn"


def publish_patiently(repository: Repository, folder: Path, manifest: Manifest) -> VersionRef:
    while True:
        try:
            return repository.publish(folder, manifest.model_copy(update={"files": ()}))
        except BeingRemoved:
            repository.head()  # a step of its own, so that the others come to theirs


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.integers(0, 5), max_size=120))
def test_in_whatever_order_nothing_is_lost(grown: Path, turns: list[int]):
    """Two removals without any time of grace, beside everybody who writes; each operation on the store is a step."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(grown, name, dirs_exist_ok=True)
        folder, repository = Path(name), Repository(f"file://{name}/m")
        old = {manifest.skill: (ref, manifest) for ref, manifest in repository.lineage()}
        catalogue = Catalogue.read(repository.uri)
        side = next(v.ref for v in catalogue.versions.values() if v.manifest and v.manifest.skill == "side")
        head = repository.head().ref
        broken = Manifest(
            files=(), sequence=repository.manifest(head).sequence + 1, parent=head, skill="broken",
            content_digest="sha256:broken",
        )  # fmt: skip
        learner, promoter = (
            Actor("learner", lambda: teach(repository, folder / "new")),
            Actor("promoter", lambda: promote_side(repository, side)),
        )
        write_small(folder / "new")
        actors = [
            Actor("removal 1", lambda: remove(repository.uri, KEEP_TWO)),
            Actor("removal 2", lambda: remove(repository.uri, KEEP_TWO)),
            Actor("reverter", lambda: go_back(repository)),
            Actor("again", lambda: publish_patiently(repository, folder / "a", old["a"][1])),
            Actor("resumed", lambda: publish_patiently(repository, folder / "broken", broken)),
            *(learner, promoter),
        ]
        run_in_turns(actors, turns, lambda: check_every_version(repository.uri))
        for actor in actors:
            assert not isinstance(actor.result, Exception), actor.name
        head = repository.head()
        repository.verify(head.ref)
        lineage = [ref for ref, _ in repository.lineage()]
        assert learner.result in lineage or head.ref in {repository.manifest(learner.result).parent, side}
        if promoter.result == "promoted":
            assert side in lineage
