"""Where and how tensors are computed: device, threads, determinism, precision. Only this module asks the machine."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from skill_trainer.errors import ConfigInvalid

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def compute_device() -> torch.device:
    """Returns this process's GPU where there are any, else the CPU; raises ConfigInvalid where there are too few."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= present:
        raise ConfigInvalid(
            f"process {number + 1} of this machine finds {present} GPUs: start as many processes as it has, with "
            "--processes or training.gpusPerNode"
        )
    return torch.device("cuda", number)


def precision(device: torch.device) -> AbstractContextManager[object]:
    """Returns the context of all forward passes: bf16 over fp32 weights on a GPU, plain fp32 on a CPU.

    On CPUs without bf16 instructions a bf16 product takes ten times as long as an fp32 one.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def prepare() -> None:
    """Sets threads and deterministic kernels, so that a run gives the same weights on the same kind of machine."""
    torch.set_num_threads(num_threads())
    if not torch.cuda.is_available():
        _keep_memory()
    # cuBLAS is deterministic only with a fixed workspace; must be set before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    # Filling fresh memory would only hide reads of memory that was never written, at the price of a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False


def _keep_memory() -> None:
    """Lets this process keep what it frees, and bounds what products keep: of use where tensors lie in its memory.

    glibc gives each large block back at once, and the next one of its size is made of new pages, filled with zeros:
    more than half of a run's page faults (docs/evidence.md). oneDNN keeps a megabyte for each shape that it has
    multiplied, of the last thousand, and there is a new one for each number of tokens; a part has some twenty.

    Source: glibc manual, "Malloc Tunable Parameters", numbers from malloc.h; oneDNN, "Primitive Cache". oneDNN and
    PyTorch's use of it read their environment with the first product.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "32")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in other C libraries
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(option, value)


@contextmanager
def without_order() -> Iterator[None]:
    """Allows kernels that do not promise an order, where there is nothing to be added up in one.

    PyTorch counts as such, and replaces by sorting, what writes to places that come from a tensor: to the places of new
    tokens in a cache, all different.
    """
    promised = torch.are_deterministic_algorithms_enabled()
    only_if_possible = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=promised, warn_only=only_if_possible)


def keep_order_if_possible(rehearsal: Callable[[], object]) -> None:
    """Runs a rehearsal of what will be computed; gives up deterministic kernels where an operation has none.

    PyTorch refuses such an operation, and training would end. Without the promise, a run that is resumed on a GPU may
    come to weights that differ in their last digits.
    """
    try:
        rehearsal()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        log.warning("resuming will not be exact, as an operation of this model has no fixed order: %s", error)
        warnings.filterwarnings("ignore", message=".*deterministic.*", category=UserWarning)
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was told: a GPU is told ahead of time, and would be timed wrong."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def num_threads() -> int:
    """Returns OMP_NUM_THREADS, else this process's share of the container's CPU limit, else of the usable cores.

    Sums depend on the number of threads, so a run that moves to another node must not change it by itself.
    """
    if wanted := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]:
        return max(1, int(wanted))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit(Path("/sys/fs/cgroup"))
    usable = min(cores, math.ceil(limit)) if limit else cores
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def cpu_limit(cgroup: Path) -> float | None:
    """Returns the CPU limit of the control group that is mounted at `cgroup`, in cores; None where there is none.

    Source: kernel documentation, cgroup-v2 `cpu.max`, and cgroup-v1 `cpu.cfs_quota_us`.
    """
    unified = cgroup / "cpu.max"
    if unified.exists():
        quota, period = unified.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    legacy = cgroup / "cpu" / "cpu.cfs_quota_us"
    if legacy.exists() and (quota_us := int(legacy.read_text())) > 0:
        return quota_us / int((legacy.parent / "cpu.cfs_period_us").read_text())
    return None


def total_memory(device: torch.device) -> int:
    """Returns the bytes of memory that the device has; on a CPU, this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpu_bytes(device: torch.device) -> int:
    """Returns the bytes of memory of a GPU, 0 for a CPU."""
    return total_memory(device) if device.type == "cuda" else 0


def memory_bytes(device: torch.device) -> int:
    """Returns the most memory that was in use so far: of the device, or of this process where that is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
