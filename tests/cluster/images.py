"""Build images with buildah and push them to a registry; nothing is done twice.

A tag is a digest of everything that goes into the image, so the registry itself tells whether there is work to do.
Buildah's storage and its caches live in the cache folder, apart from other images of the machine.
"""

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import debian
from tests.cluster.binaries import binary, cache_folder, locked
from tests.cluster.console import ClusterError, run, say
from tests.cluster.processes import Processes
from tests.cluster.registry import Registry

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:trixie-slim"
MIRROR = "http://deb.debian.org"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# The targets of the Dockerfile, and how long a first build takes on two cores.
TARGETS = {"operator": "2 minutes", "store": "a minute", "trainer": "5 minutes", "engine": "6 minutes"}
SOURCES = (
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "uv.lock",
    "README.md",
    "LICENSE",
    "operator/src",
    "trainer_image/src",
)
# Images of one program each: what holds the namespaces of a pod, and the object store of the tests and the demo.
PROGRAMS = {"pause": "scratch", "seaweedfs": BASE}
# What `debian:trixie-slim` leaves out as well.
BALLAST = ("var/lib/apt/lists", "var/cache/apt", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


@dataclass(frozen=True)
class Image:
    """An image in a registry: `reference` ends in a tag that names its content, `digest` is what a pull must match."""

    reference: str
    digest: str


def load(target: str, registry: Registry) -> Image:
    """Return a target's image in the registry, built and pushed now where it is not there yet.

    Raises:
        ClusterError: there is no such target, this machine cannot build, or the build or the push failed.
    """
    if target not in TARGETS and target not in PROGRAMS:
        known = ", ".join([*TARGETS, *PROGRAMS])
        raise ClusterError(f"There is no image {target!r}; the images are {known}.")
    name, tag = f"skillupdate/{target}", _content_key(target)
    digest = registry.digest(name, tag)
    if digest is None:
        with locked(_folder() / "build.lock"):
            if registry.digest(name, tag) is None:  # another process may have pushed it while this one waited
                _push(_build(target, tag), target, registry, f"{name}:{tag}")
        digest = registry.digest(name, tag)
    if digest is None:
        raise ClusterError(f"The registry {registry.host} does not have {name}:{tag} although it was pushed.")
    return Image(f"{registry.host}/{name}:{tag}", digest)


def prepare(*targets: str) -> None:
    """Build targets into buildah's storage where they are not there yet, so that a later `load` only pushes.

    Raises:
        ClusterError: this machine cannot build, or the build failed.
    """
    with locked(_folder() / "build.lock"):
        for target in targets:
            _build(target, _content_key(target))


def prepare_beside(*targets: str) -> None:
    """Start `prepare` as a process that ends with this one, out of the way of what goes on meanwhile.

    Whoever needs an image before it is built waits in `load`, or builds it there where this did not succeed.
    """
    processes = Processes(_folder(), outlive=False)
    processes.start("prepare", ["nice", sys.executable, "-m", "tests.cluster", "build", *targets])
    say(f"Building images beside the first tests, where something changed: {processes.log('prepare')}")


def _push(image: str, target: str, registry: Registry, name: str) -> None:
    started = time.monotonic()
    flags = ["--compression-format=zstd", "--compression-level=1", f"--tls-verify={str(registry.secure).lower()}"]
    _buildah("push", *flags, image, f"docker://{registry.host}/{name}", log=f"push-{target}")
    say(f"Pushed {target} in {time.monotonic() - started:.1f} s.")


def _build(target: str, tag: str) -> str:
    """Build a target into buildah's storage, if it is not there, and return its name there."""
    debian.IMAGES.require()
    image, started = f"localhost/skillupdate/{target}:{tag}", time.monotonic()
    if _stored(image):
        return image
    if PROGRAMS.get(target) != "scratch":
        _ensure_base()
    if target in PROGRAMS:
        _build_program(target, image)
    else:
        say(f"Building the image {target} (after the first time seconds; the first time {TARGETS[target]}) …")
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle:
            secret = _company_certificates(bundle.name)
            _bud("--target", target, *secret, "--tag", image, str(ROOT), log=f"build-{target}")
    say(f"Built {target} in {time.monotonic() - started:.1f} s.")
    _forget_older(target, image)
    return image


def _forget_older(target: str, image: str) -> None:
    """Remove what earlier sources made of a target: the images of a day's work fill a disk.

    Layers that the new one shares stay. A registry keeps what was pushed; another checkout builds its own again.
    """
    names = _buildah("images", "--format={{.Name}}:{{.Tag}}").split()
    older = {name for name in names if name.startswith(f"localhost/skillupdate/{target}:")} - {image}
    for name in sorted(older):
        with suppress(ClusterError):  # in use: next time
            _buildah("rmi", name)


def _build_program(target: str, image: str) -> None:
    """Build an image of one static program and nothing else."""
    program = _program(target)
    with tempfile.TemporaryDirectory() as context:
        shutil.copy2(program, context)
        path = f"/usr/local/bin/{program.name}"
        lines = [
            f"FROM {PROGRAMS[target]}",
            f"COPY {program.name} {path}",
            "USER 65532:65532",
            f'ENTRYPOINT ["{path}"]',
        ]
        Path(context, "Dockerfile").write_text("\n".join(lines) + "\n")
        _bud("--tag", image, context, log=f"build-{target}")


def _program(target: str) -> Path:
    return binary("pause") if target == "pause" else Path(sys.executable).parent / "weed"


def _company_certificates(bundle: str) -> Sequence[str]:
    """Put the machine's own extra authorities into one file and return the option that gives it to the build."""
    certificates = sorted(CERTIFICATES.glob("*.crt")) if CERTIFICATES.is_dir() else []
    Path(bundle).write_text("\n".join(certificate.read_text() for certificate in certificates))
    return ["--secret", f"id=ca,src={bundle}"] if certificates else []


def _ensure_base() -> None:
    """Have the Dockerfile's base image: pulled where Docker Hub can be reached, else the same made by debootstrap."""
    if _stored(BASE):
        return
    with suppress(ClusterError):
        run(["timeout", "20", *_command("pull", "--quiet", BASE)], env=_environment(), log=_log("base"))
        return
    say(f"{BASE} cannot be pulled; making it with debootstrap (once; usually a minute) …")
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        root = Path(folder, "root")
        run(["debootstrap", "--variant=minbase", "trixie", str(root), f"{MIRROR}/debian"], log=_log("debootstrap"))
        _slim(root)
        container = _buildah("from", "scratch").strip()
        _buildah("copy", "--quiet", container, str(root), "/")
        _buildah("config", "--cmd", "bash", container)
        _buildah("commit", "--quiet", "--rm", container, BASE)


def _slim(root: Path) -> None:
    for path in BALLAST:
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).mkdir(parents=True, exist_ok=True)
    for name in ("apt/lists/partial", "apt/archives/partial"):
        top = "var/lib" if "lists" in name else "var/cache"
        (root / top / name).mkdir(parents=True, exist_ok=True)
    suites = [("debian", "trixie"), ("debian", "trixie-updates"), ("debian-security", "trixie-security")]
    sources = "".join(f"deb {MIRROR}/{archive} {suite} main\n" for archive, suite in suites)
    (root / "etc/apt/sources.list").write_text(sources)


def _content_key(target: str) -> str:
    sources = [ROOT / source for source in SOURCES] if target in TARGETS else [_program(target)]
    digest = hashlib.sha256(f"{target} {PROGRAMS.get(target)}".encode())
    for file in _files(sources):
        digest.update(f"\0{file.name}\0".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(sources: Iterable[Path]) -> Iterable[Path]:
    for source in sources:
        if source.is_file():
            yield source
        else:
            yield from sorted(f for f in source.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def _stored(image: str) -> bool:
    try:
        _buildah("inspect", "--type=image", image)
    except ClusterError:
        return False
    return True


def _bud(*arguments: str, log: str) -> None:
    _buildah("bud", "--pull-never", "--layers", "--network=host", *arguments, log=log)


def _buildah(*arguments: str, log: str | None = None) -> str:
    return run(_command(*arguments), env=_environment(), log=_log(log) if log else None)


def _command(*arguments: str) -> list[str]:
    # The run root must vanish with a restart of the machine: it counts what is mounted.
    return ["buildah", f"--root={_folder() / 'storage'}", "--runroot=/run/skillupdate/buildah", *arguments]


def _environment() -> dict[str, str]:
    # Buildah keeps the volumes of `RUN --mount=type=cache` under TMPDIR.
    temporary = _folder() / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay", "TMPDIR": str(temporary)}


def _log(name: str) -> Path:
    folder = _folder() / "log"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _folder() -> Path:
    return cache_folder() / "images"
