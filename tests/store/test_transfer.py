"""Downloads: ranges, resumption, broken connections, and every way in which bytes can be wrong."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from skill_contract.manifest import Manifest, VersionRef
from skill_store import retry, transfer
from skill_store import s3 as s3_module
from skill_store.errors import DigestMismatch, NoSpace, NotFound, StoreUnavailable
from skill_store.folder import FolderStore
from skill_store.landing import PARTIAL, PARTS
from skill_store.repository import Repository
from skill_store.s3 import S3Store
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, files_below

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 300 kB of weights come as five ranges, the last one short."""
    monkeypatch.setattr(transfer, "RANGE_BYTES", 64 << 10)


@pytest.fixture
def repository(place: Folder | Bucket) -> Repository:
    return Repository(f"{place.uri}/m")


@pytest.fixture
def ref(repository: Repository, model: Path) -> VersionRef:
    return repository.publish(model, Manifest(files=(), sequence=0))


def key_of(ref: VersionRef, name: str = WEIGHTS) -> str:
    return f"m/versions/{ref.version}/{name}"


def test_ranges_make_the_same_file(repository: Repository, ref: VersionRef, model: Path, tmp_path: Path):
    repository.download(ref, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert not [name for name in files_below(tmp_path / "out") if name.endswith(PARTIAL)]


def flipped(data: bytes) -> bytes:
    return data[:200_000] + bytes([data[200_000] ^ 1]) + data[200_001:]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (flipped, "sha256"),
        (lambda data: data[:-1], "299999 bytes"),
        (lambda data: data[:100_000], "100000 bytes"),
        (lambda data: b"", "0 bytes"),
    ],
    ids=["one bit", "one byte short", "cut in a range", "empty"],
)
def test_damaged_weights_are_refused_by_name(
    repository: Repository, place: Folder | Bucket, ref: VersionRef, tmp_path: Path, damage, expected: str
):
    place.write(key_of(ref), damage(place.read(key_of(ref))))
    with pytest.raises(DigestMismatch, match=expected) as refused:
        repository.download(ref, tmp_path / "out")
    assert refused.value.file == WEIGHTS
    left = files_below(tmp_path / "out")
    assert WEIGHTS not in left
    assert WEIGHTS + PARTIAL not in left
    assert ".skill/manifest.json" not in left
    with pytest.raises(DigestMismatch, match=expected):
        repository.verify(ref)


def test_an_object_that_has_grown_does_not_pass_verification(
    repository: Repository, place: Folder | Bucket, ref: VersionRef, model: Path, tmp_path: Path
):
    place.write(key_of(ref), place.read(key_of(ref)) + b"more")
    with pytest.raises(DigestMismatch, match="300001 bytes"):
        repository.verify(ref)
    repository.download(ref, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes(), (
        "what lands is what was promised"
    )


def test_a_missing_file_is_named(repository: Repository, place: Folder | Bucket, ref: VersionRef, tmp_path: Path):
    place.delete(key_of(ref, "tokenizer.json"))
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        repository.download(ref, tmp_path / "out")


def test_valid_files_are_kept_and_invalid_ones_replaced(
    repository: Repository, place: Folder | Bucket, ref: VersionRef, model: Path, tmp_path: Path
):
    repository.download(ref, tmp_path / "out")
    weights, config = tmp_path / "out" / WEIGHTS, tmp_path / "out/config.json"
    kept = weights.stat()
    config.write_text("x" * config.stat().st_size)
    place.delete(key_of(ref))  # so that a second download of the weights could only fail
    repository.download(ref, tmp_path / "out")
    assert weights.stat().st_ino == kept.st_ino
    assert config.read_bytes() == (model / "config.json").read_bytes()


def test_a_full_disk_is_said_with_the_file(repository: Repository, ref: VersionRef, tmp_path: Path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(NoSpace, match=WEIGHTS):
            repository.download(ref, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


class Breaking:
    """A way to the server on which connections break after some bytes of answers, a given number of times."""

    def __init__(self, target: tuple[str, int], breaks: int, *, silently: bool = False) -> None:
        self._target = target
        self.silently = silently
        """Nothing comes any more, and the connection stays."""
        self.over = threading.Event()
        self._lock = threading.Lock()
        self.breaks = breaks

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._accept, args=(server,), daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
            self.over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._answers, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            back.join()

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := server.recv(4096):
                carried += len(data)
                if carried > 20_000 and self._breaks_now():
                    if self.silently:
                        self.over.wait()
                    else:
                        client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def _breaks_now(self) -> bool:
        with self._lock:
            self.breaks -= 1
            return self.breaks >= 0


@pytest.fixture
def breaking(s3: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch):
    """A version in S3, and a function that puts a breaking connection before it."""
    ref = Repository(f"{s3.uri}/m").publish(model, Manifest(files=(), sequence=0))
    parts = urlsplit(s3.server.endpoint)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)

    @contextlib.contextmanager
    def through(breaks: int, *, silently: bool = False):
        way = Breaking((parts.hostname, parts.port), breaks, silently=silently)
        with way.serve() as url, monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_S3", url)
            yield Repository(f"{s3.uri}/m"), ref, way

    return through


@pytest.mark.store
def test_broken_connections_cost_time_only(breaking, model: Path, tmp_path: Path):
    with breaking(3) as (repository, ref, way):
        repository.download(ref, tmp_path / "out")
        assert way.breaks < 0
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


@pytest.mark.store
@pytest.mark.parametrize("breaks", [2, 10_000])
def test_a_connection_that_falls_silent_is_given_up(
    breaking, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: int
):
    monkeypatch.setattr(s3_module, "READ_SECONDS", 1.0)
    with breaking(breaks, silently=True) as (repository, ref, _):
        if breaks == 2:
            repository.download(ref, tmp_path / "out")
            assert (tmp_path / "out" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
        else:
            with pytest.raises(
                StoreUnavailable, match=r"model\.safetensors: the object store cannot be reached.*timed? ?out"
            ):
                repository.download(ref, tmp_path / "out")


@pytest.mark.store
def test_a_store_that_stays_away_is_unavailable_and_not_damaged(breaking, tmp_path: Path):
    with breaking(10_000) as (repository, ref, _), pytest.raises(StoreUnavailable) as failed:
        repository.download(ref, tmp_path / "out")
    assert failed.value.retriable
    assert not (tmp_path / "out" / WEIGHTS).exists()


RANGE = 64 << 10


def begin(out: Path, weights: bytes, sha256: str, ranges: int, *, wrong: int = 0) -> None:
    """Leaves a folder as a download does that was killed after some ranges, and in the middle of the next."""
    out.mkdir(exist_ok=True)
    came = bytearray(weights[: ranges * RANGE + 100]) + bytes(len(weights) - ranges * RANGE - 100)
    came[:wrong] = bytes(wrong)
    (out / (WEIGHTS + PARTIAL)).write_bytes(came)
    lines = [sha256, *(f"{number * RANGE} {RANGE}" for number in range(ranges)), f"{ranges * RANGE} 6"]
    (out / (WEIGHTS + PARTS)).write_text("\n".join(lines))


class Reads:
    """Notes which ranges of the weights the store was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[int] = []
        for kind in (FolderStore, S3Store):
            monkeypatch.setattr(kind, "read", self._noting(kind.read))

    def _noting(self, read):
        def noted(store, key: str, start: int, length: int):
            if key.endswith(WEIGHTS):
                self.starts.append(start)
            return read(store, key, start, length)

        return noted


def test_ranges_that_have_come_are_not_fetched_again(
    repository: Repository, ref: VersionRef, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights, digest = (model / WEIGHTS).read_bytes(), weights_digest(repository, ref)
    begin(tmp_path / "out", weights, digest, 3)
    reads = Reads(monkeypatch)
    repository.download(ref, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == weights
    assert sorted(reads.starts) == [3 * RANGE, 4 * RANGE]
    assert not [name for name in files_below(tmp_path / "out") if name.endswith((PARTIAL, PARTS))]


@pytest.mark.parametrize("damage", ["other bytes", "another file's", "no journal"])
def test_what_an_earlier_attempt_left_is_not_believed(
    repository: Repository, ref: VersionRef, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
):
    weights, digest = (model / WEIGHTS).read_bytes(), weights_digest(repository, ref)
    begin(tmp_path / "out", weights, "0" * 64 if damage == "another file's" else digest, 3, wrong=50)
    if damage == "no journal":
        (tmp_path / "out" / (WEIGHTS + PARTS)).unlink()
    reads = Reads(monkeypatch)
    repository.download(ref, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == weights
    assert {0, RANGE, 2 * RANGE} <= set(reads.starts)


def weights_digest(repository: Repository, ref: VersionRef) -> str:
    return next(file.sha256 for file in repository.manifest(ref).files if file.path == WEIGHTS)


def test_damaged_weights_are_refused_after_an_earlier_attempt_too(
    repository: Repository, place: Folder | Bucket, ref: VersionRef, model: Path, tmp_path: Path
):
    begin(tmp_path / "out", (model / WEIGHTS).read_bytes(), weights_digest(repository, ref), 2)
    place.write(key_of(ref), flipped(place.read(key_of(ref))))
    with pytest.raises(DigestMismatch, match="sha256"):
        repository.download(ref, tmp_path / "out")
    assert [name for name in files_below(tmp_path / "out") if WEIGHTS in name] == []


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """64 MB in ranges of 8 MB, four at once: what is held in memory are pieces of 512 KiB."""
    import tracemalloc

    monkeypatch.setattr(transfer, "RANGE_BYTES", 8 << 20)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS).write_bytes(random.Random(3).randbytes(1 << 20) * 64)
    repository = Repository(str(tmp_path / "repository"))
    ref = repository.publish(tmp_path / "model", Manifest(files=(), sequence=0))
    tracemalloc.start()
    try:
        repository.download(ref, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
