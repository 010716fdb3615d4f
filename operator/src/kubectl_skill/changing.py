"""Changing one field of an update's spec: what approve, suspend, resume and revert have in common."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from kubectl_skill.command import Session, add_name
from kubectl_skill.errors import ExitCode
from kubectl_skill.following import follow
from kubectl_skill.picture import Body

_GIT = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations of Git controllers on what they apply."""


def add_change_arguments(parser: argparse.ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("--dry-run", action="store_true", help="ask the API server, and change nothing")
    parser.add_argument("-w", "--watch", action="store_true", help="follow the update then, as `watch` does")


def change(options: argparse.Namespace, session: Session, body: Body, spec: Mapping[str, Any], said: str) -> int:
    """Sets fields of the spec, says so, and follows the update where that was asked; returns the exit code.

    Args:
        said: what follows from it, in a sentence without a full stop.
    """
    session.cluster.change(body, spec, dry_run=options.dry_run)
    tried = " (dry run: nothing was changed)" if options.dry_run else ""
    session.out.print(f"skillupdate.sdft.dev/{options.name}: {said}{tried}", markup=False, soft_wrap=True)
    if git := applied_from_git(body):
        fields = ", ".join(f"{name}: {str(value).lower()}" for name, value in spec.items())
        session.note(f"note: {git} applies this from Git and may set it back: write {fields} there, too")
    if options.watch and not options.dry_run:
        return follow(session, options.name)
    return ExitCode.DONE


def unchanged(session: Session, name: str, why: str) -> int:
    """Says that there is nothing to do, and returns the exit code of that."""
    session.out.print(f"skillupdate.sdft.dev/{name}: unchanged, {why}", markup=False, soft_wrap=True)
    return ExitCode.DONE


def applied_from_git(body: Body) -> str:
    """Returns the name of the Git controller that applies an object; empty for none."""
    metadata = body["metadata"]
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    return next((name for mark, name in _GIT.items() if mark in marks), "")
