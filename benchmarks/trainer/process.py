"""What both measured processes have in common: their command line, threads and memory."""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

import torch


def arguments(text: str | None) -> argparse.Namespace:
    """Returns the options of a measured process, after setting its threads."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory")
    parser.add_argument("--setting", type=json.loads, required=True, help="a Setting as JSON")
    parser.add_argument("--out", type=Path, required=True, help="where the Run is written")
    parser.add_argument("--replay", type=Path, help="a Run whose answers are taken")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def peak_bytes(device: torch.device) -> int:
    """Returns the largest memory so far: of the GPU's allocations, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
