"""Where and how tensors are computed: device, threads, determinism, precision. Only this module asks the machine.

The way of a GPU (bf16 autocast over fp32 weights, deterministic cuBLAS) is written to PyTorch's documentation and has
not been run on one. Everything measured and tested is on CPUs.
"""

from __future__ import annotations

import math
import os
import resource
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from skill_trainer.errors import ConfigInvalid


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


def prepare(device: torch.device) -> None:
    """Sets threads and deterministic kernels, so that a run gives the same weights on the same kind of machine."""
    torch.set_num_threads(num_threads())
    # cuBLAS is deterministic only with a fixed workspace; must be set before the first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=device.type == "cuda")
    # Filling fresh memory would only hide reads of memory that was never written, at the price of a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False


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


def memory_bytes(device: torch.device) -> int:
    """Returns the most memory that was in use so far: of the device, or of this process where that is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
