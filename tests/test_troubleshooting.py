"""Every reason that a user can meet is explained, and the life of an update is drawn as it is."""

from __future__ import annotations

import re
from pathlib import Path

import skill_store.prove  # noqa: F401 - has faults of its own
from skill_operator.api import Reason
from skill_store.errors import StoreError
from skill_trainer.errors import TrainerError

ROOT = Path(__file__).parent.parent
STEPS = ROOT / "trainer_image/src"
SAYING = ("skill_trainer/steps/check.py", "skill_trainer/steps/train.py", "skill_store/promote.py")
"""Where a step's good words, and a gate's no, are written as they are."""
NO_REASON = {"Full"}


def _explained() -> list[str]:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    return re.findall(r"^\| `([A-Za-z]+)` \|", page, re.MULTILINE)


def _faults(of: type) -> set[type]:
    return {of}.union(*(_faults(kind) for kind in of.__subclasses__()))


def _said_by_steps() -> set[str]:
    written = "".join((STEPS / name).read_text() for name in SAYING)
    words = set(re.findall(r'"((?:[A-Z][a-z]+)+)"', written)) - NO_REASON
    data = "".join(path.read_text() for path in (STEPS / "skill_trainer").rglob("*.py"))
    words |= set(re.findall(r'DataError\(\s*"([A-Za-z]+)"', data))
    words |= {fault.reason for fault in _faults(StoreError)}
    return words | {fault.__name__ for fault in _faults(TrainerError) - {TrainerError}}


def test_every_reason_is_explained_and_no_other():
    assert set(_explained()) == set(Reason) | _said_by_steps()


def test_reasons_are_found_by_the_alphabet():
    assert _explained() == sorted(set(_explained()), key=str.lower)


def test_reason_of_the_operator_is_found_by_searching_for_its_name_once():
    """Its constant is used somewhere, and its text stands nowhere else."""
    sources = {path: path.read_text() for path in (ROOT / "operator/src").rglob("*.py")}
    for reason in Reason:
        used = [path.name for path, text in sources.items() if re.search(rf"\bReason\.{reason.name}\b", text)]
        assert used, f"nobody says {reason}"
