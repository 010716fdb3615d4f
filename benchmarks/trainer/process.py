"""What both measured processes have in common: their command line and threads."""

from __future__ import annotations

import argparse
import json
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
