"""Deterministic names of child objects, so that creating one twice meets the first (409) instead of making a second.

Pure. Limits: a pod of an Indexed Job is called `<job>-<index>-<five characters>` and its hostname has to be a DNS label
of at most 63 characters (Kubernetes, "Object Names and IDs"), which leaves 55 for the Job.
"""

from __future__ import annotations

import hashlib

MAX_JOB_NAME = 63 - len("-0-abcde")
MAX_JOBSET_NAME = 63 - len("-node-0-9999-abcde")
"""A pod of a JobSet is called `<jobset>-<replicated job>-<job>-<index>-<five characters>`."""
_HASH_DIGITS = 5


def job_name(update: str, uid: str, step: str, run: int = 1, *, longest: int = MAX_JOB_NAME) -> str:
    """Returns the name of a step's Job (or of whatever stands for it): `<update>-<step>-<hash>`.

    The hash is of the update's uid and the run, so that a re-created SkillUpdate never meets the children of the one
    that had its name before, and so that a step can run again beside what is left of its earlier run.
    """
    suffix = f"-{step}-{_hash(f'{uid}/{step}/{run}')}"
    stem = update.replace(".", "-")[: longest - len(suffix)].rstrip("-")
    return stem + suffix


def event_name(update: str, *identity: str) -> str:
    """Returns the name of an Event: the same news about the same object gets the same name, and is told once."""
    return f"{update}.{hashlib.sha256('/'.join(identity).encode()).hexdigest()[:16]}"


def version_in(weights: str) -> str:
    """Returns the version that an annotation names (`<repository>/versions/<version>@<digest>`); empty for none."""
    return weights.partition("@")[0].rpartition("/versions/")[2] if "/versions/" in weights else ""


def _hash(text: str) -> str:
    # Letters only: a name that ends in a number could be mistaken for a pod index.
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    letters = "bcdfghjklmnpqrstvwxz"
    return "".join(letters[digest // len(letters) ** place % len(letters)] for place in range(_HASH_DIGITS))
