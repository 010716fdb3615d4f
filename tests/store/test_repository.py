"""Versions and the head, on a folder and on SeaweedFS alike: nothing half-written, overwritten or lost."""

from __future__ import annotations

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skill_contract.manifest import Manifest, VersionRef
from skill_contract.step import UpdateIdentity
from skill_store.errors import BucketMissing, DigestMismatch, HeadMoved, ModelInvalid, NotFound, VersionMissing
from skill_store.objects import open_store, opened
from skill_store.repository import Repository
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, files_below, publish_child, python, write_model

WRITERS = 8
UPDATE = UpdateIdentity(namespace="team", name="tarn", uid="1234")


@pytest.fixture
def repository(place: Folder | Bucket) -> Repository:
    return Repository(f"{place.uri}/models/support-llm")


@pytest.fixture
def base(repository: Repository, model: Path) -> VersionRef:
    return repository.import_base(str(model))


def test_an_empty_repository_has_no_head(repository: Repository):
    assert repository.head() is None
    assert list(repository.lineage()) == []


def test_import_makes_version_zero_and_head(repository: Repository, base: VersionRef, model: Path):
    head = repository.head()
    assert head is not None
    assert (head.ref, head.parent, head.update) == (base, None, None)
    assert base.version.startswith("000000-")
    assert repository.manifest(base).base == str(model)
    assert repository.import_base(str(model)) == base


def test_import_leaves_behind_what_is_no_model(repository: Repository, model: Path, caplog: pytest.LogCaptureFixture):
    (model / "README.md").write_text("about")
    (model / "modeling_custom.py").write_text("raise SystemExit")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / ".cache/huggingface").mkdir(parents=True)
    (model / ".cache/huggingface/tokenizer.json").write_text("{}")
    with caplog.at_level("INFO"):
        ref = repository.import_base(f"file://{model}")
    names = [file.path for file in repository.manifest(ref).files]
    assert names == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert all(name in caplog.text for name in ("README.md", "modeling_custom.py", "pytorch_model.bin"))


def test_import_from_an_object_store(repository: Repository, place: Folder | Bucket, model: Path):
    for path in model.iterdir():
        place.write(f"base/smol/{path.name}", path.read_bytes())
    ref = repository.import_base(f"{place.uri}/base/smol")
    assert repository.verify(ref).base == f"{place.uri}/base/smol"


def test_import_refuses_pickle_and_says_how_to_convert(repository: Repository, model: Path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelInvalid, match=r"pytorch_model\.bin.*save_pretrained"):
        repository.import_base(str(model))
    assert repository.head() is None


def test_import_of_nothing_says_where_it_looked(repository: Repository, place: Folder | Bucket, tmp_path: Path):
    with pytest.raises(NotFound, match=str(tmp_path / "nowhere")):
        repository.import_base(str(tmp_path / "nowhere"))
    with pytest.raises(NotFound, match=f"{place.uri}/nowhere"):
        repository.import_base(f"{place.uri}/nowhere")


def test_what_is_published_comes_back(repository: Repository, base: VersionRef, model: Path, tmp_path: Path):
    child = publish_child(repository, model, base)
    sent = {name: (model / name).read_bytes() for name in files_below(model)}
    steps: list[tuple[int, int]] = []
    manifest = repository.download(child, tmp_path / "out", lambda done, total: steps.append((done, total)))
    got = {name: (tmp_path / "out" / name).read_bytes() for name in files_below(tmp_path / "out")}
    assert got.pop(".skill/manifest.json") == manifest.encode()
    assert got == sent
    total = sum(len(data) for data in sent.values())
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)
    assert repository.suites(child) == {"tarn": sent[".skill/suites/tarn.jsonl"]}
    assert repository.head() is not None
    assert repository.head().ref == base


def test_the_same_content_is_published_once(
    repository: Repository, place: Folder | Bucket, base: VersionRef, model: Path
):
    first = publish_child(repository, model, base)
    before = place.contents()
    assert publish_child(repository, model, base) == first
    assert place.contents() == before


def test_an_empty_file_is_not_published(repository: Repository, base: VersionRef, model: Path):
    (model / "added_tokens.json").touch()
    with pytest.raises(ModelInvalid, match=r"added_tokens\.json is empty"):
        publish_child(repository, model, base)


def test_head_moves_by_compare_and_swap(repository: Repository, base: VersionRef, model: Path):
    child = publish_child(repository, model, base)
    was = repository.head()
    head = repository.move_head(child, expected=was, update=UPDATE)
    assert repository.head() == head
    assert (head.parent, head.update) == (base, UPDATE)
    assert repository.move_head(child, expected=was, update=UPDATE) == head, "a repeated call is success"
    with pytest.raises(HeadMoved, match="moved by team/tarn"):
        repository.move_head(base, expected=was)
    assert repository.move_head(base, expected=head).ref == base, "and back, for a revert"


def test_head_never_names_what_is_no_version(repository: Repository, base: VersionRef):
    ghost = VersionRef(version="000001-000000000000", digest="sha256:" + "0" * 64)
    with pytest.raises(VersionMissing):
        repository.move_head(ghost, expected=repository.head())
    with pytest.raises(DigestMismatch):
        repository.move_head(base.model_copy(update={"digest": ghost.digest}), expected=repository.head())


def test_lineage_goes_from_the_head_to_the_base(repository: Repository, base: VersionRef, model: Path):
    first = publish_child(repository, model, base, "tarn")
    repository.move_head(first, expected=repository.head())
    second = publish_child(repository, model, first, "oake")
    repository.move_head(second, expected=repository.head())
    assert [ref for ref, _ in repository.lineage()] == [second, first, base]
    assert set(repository.suites(second)) == {"tarn", "oake"}


def test_lineage_ends_where_retention_has_removed(
    repository: Repository, place: Folder | Bucket, base: VersionRef, model: Path
):
    child = publish_child(repository, model, base)
    repository.move_head(child, expected=repository.head())
    for key in place.keys(f"models/support-llm/versions/{base.version}/"):
        place.delete(key)
    assert [ref for ref, _ in repository.lineage()] == [child]


def test_eight_imports_at_once_make_one_version_and_one_head(
    repository: Repository, place: Folder | Bucket, model: Path
):
    with ThreadPoolExecutor(WRITERS) as pool:
        refs = list(pool.map(lambda _: repository.import_base(str(model)), range(WRITERS)))
    assert len(set(refs)) == 1
    assert {key.split("/")[3] for key in place.keys("models/support-llm/versions/")} == {refs[0].version}
    assert repository.verify(refs[0]) == repository.manifest(repository.head().ref)


def test_eight_publishers_of_the_same_content_agree(repository: Repository, base: VersionRef, model: Path):
    manifest = Manifest(files=(), sequence=1, parent=base, skill="race")
    with ThreadPoolExecutor(WRITERS) as pool:
        refs = list(pool.map(lambda _: repository.publish(model, manifest), range(WRITERS)))
    assert len(set(refs)) == 1
    assert repository.verify(refs[0]).skill == "race"


@pytest.mark.parametrize("first", [True, False], ids=["first head", "next head"])
def test_of_eight_that_move_the_head_exactly_one_wins(
    repository: Repository, base: VersionRef, model: Path, place: Folder | Bucket, first: bool
):
    refs = [publish_child(repository, model, base, f"skill-{number}") for number in range(WRITERS)]
    if first:
        place.delete("models/support-llm/head.json")
    was = repository.head()

    def move(ref: VersionRef) -> bool:
        try:
            repository.move_head(ref, expected=was)
        except HeadMoved:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(move, refs))
    assert sum(won) == 1
    assert repository.head().ref == refs[won.index(True)]


def test_no_update_is_lost_among_eight_that_start_again(repository: Repository, base: VersionRef, tmp_path: Path):
    def teach(number: int) -> None:
        folder = write_model(tmp_path / f"trained-{number}", seed=number)
        while True:
            head = repository.head()
            ref = publish_child(repository, folder, head.ref, f"skill-{number}")
            try:
                repository.move_head(ref, expected=head)
                return
            except HeadMoved:
                continue

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(teach, range(WRITERS)))
    skills = [manifest.skill for _, manifest in repository.lineage()]
    assert sorted(skills) == ["", *(f"skill-{number}" for number in range(WRITERS))]


KILLED = """
import sys, time
from pathlib import Path
from skill_contract.manifest import Manifest, VersionRef
from skill_store.repository import Repository

class Slow(Repository):
    def _seal(self, ref, data, over):
        print(ref.dump_json(), flush=True)
        time.sleep(600)

Slow(sys.argv[1]).publish(Path(sys.argv[2]), Manifest.parse_json(sys.argv[3]))
"""


def test_a_publisher_killed_before_the_manifest_leaves_no_version(
    repository: Repository, place: Folder | Bucket, base: VersionRef, model: Path, tmp_path: Path
):
    manifest = Manifest(files=(), sequence=1, parent=base, skill="killed")
    command = python(KILLED, repository.uri, str(model), manifest.dump_json())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ref = VersionRef.parse_json(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    parts = place.keys(f"models/support-llm/versions/{ref.version}/")
    assert len(parts) == 4
    with pytest.raises(VersionMissing, match="there is no manifest"):
        repository.resolve(ref.version)
    with pytest.raises(VersionMissing):
        repository.download(ref, tmp_path / "out")
    with pytest.raises(VersionMissing):
        repository.move_head(ref, expected=repository.head())
    place.write(parts[0], b"cut off")
    assert repository.publish(model, manifest) == ref, "the next attempt finishes the same version"
    assert repository.verify(ref) == repository.manifest(ref)


def test_a_damaged_manifest_or_head_is_named(repository: Repository, place: Folder | Bucket, base: VersionRef):
    key = f"models/support-llm/versions/{base.version}/.skill/manifest.json"
    place.write(key, place.read(key).replace(b'"sequence":0', b'"sequence":1'))
    with pytest.raises(DigestMismatch, match=key):
        repository.manifest(base)
    with pytest.raises(DigestMismatch):
        repository.resolve(base.version)
    place.write("models/support-llm/head.json", b"{}")
    with pytest.raises(DigestMismatch, match=r"head\.json is damaged"):
        repository.head()


def test_a_manifest_cannot_write_outside_its_folder(
    repository: Repository, place: Folder | Bucket, base: VersionRef, tmp_path: Path
):
    manifest = repository.manifest(base)
    evil = manifest.model_copy(update={"files": (manifest.files[0].model_copy(update={"path": "../../evil"}),)})
    from skill_contract.manifest import digest_of, version_name

    ref = VersionRef(version=version_name(0, digest_of(evil.encode())), digest=digest_of(evil.encode()))
    place.write(f"models/support-llm/versions/{ref.version}/.skill/manifest.json", evil.encode())
    with pytest.raises(ValueError, match="plain relative path"):
        repository.download(ref, tmp_path / "a/b")
    assert not (tmp_path / "evil").exists()


def test_a_manifest_is_canonical_json(repository: Repository, place: Folder | Bucket, base: VersionRef):
    data = place.read(f"models/support-llm/versions/{base.version}/.skill/manifest.json")
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_single_files_are_read_by_uri(place: Folder | Bucket):
    content = bytes(range(256)) * 10_000  # more than one piece
    place.write("data/train.jsonl", content)
    place.write("data/empty.jsonl", b"")
    with opened(f"{place.uri}/data/train.jsonl") as file:
        assert file.read() == content
        file.seek(-3, 2)
        assert file.read() == content[-3:]
    with opened(f"{place.uri}/data/empty.jsonl") as file:
        assert file.read() == b""
    missing = f"{place.uri.removeprefix('file://')}/data/none.jsonl"
    with pytest.raises(NotFound, match=missing), opened(f"{place.uri}/data/none.jsonl"):
        pass


@pytest.mark.store
def test_a_missing_bucket_is_not_an_empty_repository(s3: Bucket):
    with pytest.raises(BucketMissing, match="the bucket does not exist"):
        Repository("s3://no-such-bucket-here/m").head()


def test_other_schemes_are_refused_with_those_that_work():
    with pytest.raises(ValueError, match="use s3://bucket/prefix or file:///folder"):
        open_store("gs://bucket/models")
