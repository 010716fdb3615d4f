"""A repository for people: its versions, their lineage, and how two of them differ. Pure: text, or plain JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skill_contract.evaluation import Evaluation
from skill_contract.manifest import Manifest
from skill_store.catalogue import Catalogue, VersionFolder
from skill_store.errors import VersionMissing

_COLUMNS = "{:<20}  {:<24}  {:>14}  {:>9}  {:>9}  {:<25}  {}"


def table(catalogue: Catalogue) -> Iterator[str]:
    """Yields the lines of `ls`: every version that can be fetched, newest first."""
    yield _COLUMNS.format("VERSION", "SKILL", "SCORE", "RETENTION", "SIZE", "CREATED", "STATE")
    for version in _newest_first(catalogue):
        if version.damage:
            yield f"{version.name}  damaged: {version.damage}"
        elif version.manifest and version.stands:
            skill, retention = scores(version.manifest.evaluation)
            words = (skill, retention, size(version.size), version.manifest.created, state(catalogue, version))
            yield _COLUMNS.format(version.name, version.manifest.skill or "(base)", *words).rstrip()


def tree(catalogue: Catalogue) -> Iterator[str]:
    """Yields the lines of `log`: the head's lineage as a trunk, newest first, and beside it what branched off.

    Versions that retention has removed are in it: what they were is still known.
    """
    for root in reversed(_roots(catalogue)):
        yield from _trunk(catalogue, root)
    for version in catalogue.versions.values():
        if version.manifest is None and (version.files or version.damage):
            yield f"× {version.name}  {version.damage or 'an upload that was not completed'}  {size(version.size)}"


def _roots(catalogue: Catalogue) -> list[VersionFolder]:
    """Returns the versions whose parent is nowhere, not even removed: bases, and what a lineage broken by hand left."""
    return [
        child
        for parent, children in catalogue.children.items()
        if parent not in catalogue.versions or catalogue.versions[parent].manifest is None
        for child in children
    ]


def _trunk(catalogue: Catalogue, root: VersionFolder) -> Iterator[str]:
    lineage = {version.name for version in catalogue.lineage}
    trunk, branches = [root], {}
    while children := sorted(catalogue.children.get(trunk[-1].name, []), key=lambda child: child.name in lineage):
        branches[trunk[-1].name] = children[:-1]
        trunk.append(children[-1])
    for version in reversed(trunk):
        for branch in branches.get(version.name, []):
            yield from (f"│ {line}" for line in _trunk(catalogue, branch))
            yield "├─╯"
        yield f"{'●' if version.name in lineage else '○'} {_line(catalogue, version)}"


def _line(catalogue: Catalogue, version: VersionFolder) -> str:
    manifest = version.manifest
    assert manifest is not None, "versions have parents, uploads have none"
    skill, retention = scores(manifest.evaluation)
    words = (
        version.name,
        manifest.skill or f"base {manifest.base}".rstrip(),
        skill,
        f"retention {retention}" if retention else "",
        size(version.size) if version.stands else "",
        f"by {manifest.update.namespace}/{manifest.update.name}" if manifest.update else "",
        manifest.created,
        state(catalogue, version),
    )
    return "  ".join(word for word in words if word)


def state(catalogue: Catalogue, version: VersionFolder) -> str:
    """Returns what a version is to the head, in words; empty for one of its ancestors."""
    if version.tombstone:
        return f"removed {version.tombstone.removed}"
    if catalogue.head and version.ref == catalogue.head.ref:
        return "head"
    if any(version is ancestor for ancestor in catalogue.lineage):
        return ""
    parent = version.manifest.parent if version.manifest else None
    return "could be promoted" if catalogue.head and parent == catalogue.head.ref else "not in the head's lineage"


def scores(evaluation: Evaluation | None) -> tuple[str, str]:
    """Returns the skill's score before and after, and the worst retention, as a list shows them."""
    if evaluation is None:
        return "", ""
    skill, worst = evaluation.new_skill, evaluation.worst_retention
    return (f"{skill.before:.2f} -> {skill.after:.2f}" if skill else "", f"{worst:.3f}" if worst is not None else "")


def size(count: int) -> str:
    """Returns a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def facts(catalogue: Catalogue) -> dict[str, Any]:
    """Returns the same for programs: the head, and all versions, newest first, removed ones too."""
    return {
        "uri": catalogue.uri,
        "head": catalogue.head.dump() if catalogue.head else None,
        "versions": [_facts(catalogue, version) for version in _newest_first(catalogue)],
    }


def _facts(catalogue: Catalogue, version: VersionFolder) -> dict[str, Any]:
    manifest = version.manifest
    about = manifest.dump() if manifest else {}
    return {
        "version": version.name,
        "digest": version.ref.digest if version.ref else "",
        "sizeBytes": version.size,
        "state": version.damage or (state(catalogue, version) if manifest else "an upload that was not completed"),
        "removed": version.tombstone.removed if version.tombstone else "",
        **{key: value for key, value in about.items() if key != "files"},
    }


def _newest_first(catalogue: Catalogue) -> list[VersionFolder]:
    return sorted(catalogue.versions.values(), key=lambda version: version.name, reverse=True)


def difference(catalogue: Catalogue, old: VersionFolder, new: VersionFolder) -> dict[str, Any]:
    """Returns how two versions differ, as plain JSON values: how they are related, scores, configuration, files."""
    before, after = _manifest(old), _manifest(new)
    return {
        "old": old.name,
        "new": new.name,
        "lineage": _relation(catalogue, old, new),
        "skills": {
            "added": [skill for skill in after.skills if skill not in before.skills],
            "missing": [skill for skill in before.skills if skill not in after.skills],
        },
        "scores": _changes(_scores(before), _scores(after)),
        "configuration": _changes(_configuration(before), _configuration(after)),
        "files": _changes(
            {file.path: f"{size(file.size)} {file.sha256[:12]}" for file in before.files},
            {file.path: f"{size(file.size)} {file.sha256[:12]}" for file in after.files},
        ),
    }


def _manifest(version: VersionFolder) -> Manifest:
    if version.manifest is None:
        raise VersionMissing(f"{version.name} is no version: {version.damage or 'its upload was never completed'}")
    return version.manifest


def _relation(catalogue: Catalogue, old: VersionFolder, new: VersionFolder) -> str:
    older, newer = _ancestors(catalogue, old), _ancestors(catalogue, new)
    if old.name == new.name:
        return "they are the same version"
    if old.name in newer:
        return f"{new.name} was trained from {old.name} in {newer.index(old.name)} steps: " + " <- ".join(
            newer[: newer.index(old.name) + 1]
        )
    if new.name in older:
        return f"{old.name} was trained from {new.name} in {older.index(new.name)} steps: it is the newer one"
    common = next((name for name in newer if name in older), "")
    return f"both come from {common}" if common else "they have no ancestor in common that is known"


def _ancestors(catalogue: Catalogue, version: VersionFolder) -> list[str]:
    names = [version.name]
    while version.manifest and (parent := version.manifest.parent) and parent.version in catalogue.versions:
        version = catalogue.versions[parent.version]
        names.append(version.name)
    return names


def _scores(manifest: Manifest) -> dict[str, str]:
    """Returns each suite's score after training; the new skill's and all that were measured beside it."""
    evaluation = manifest.evaluation
    if evaluation is None:
        return {}
    suites = [*([evaluation.new_skill] if evaluation.new_skill else []), *evaluation.retention]
    return {suite.suite: f"{suite.after:.3f}" for suite in suites}


def _configuration(manifest: Manifest) -> dict[str, str]:
    about = {
        "base": manifest.base,
        "skill": manifest.skill,
        "dataDigest": manifest.data_digest,
        "seed": manifest.seed,
        "codeVersion": manifest.code_version,
        "method": manifest.method,
    }
    return dict(_flat("", about))


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, deeper in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), deeper)
    elif value not in (None, ""):
        yield path, str(value)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str | None]]:
    """Returns what differs: name to [before, after]; None for what is not there."""
    names = [*before, *(name for name in after if name not in before)]
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def difference_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields `difference` as text."""
    yield f"--- {found['old']}"
    yield f"+++ {found['new']}"
    yield found["lineage"]
    for word, skills in found["skills"].items():
        if skills:
            yield f"skills {word}: {', '.join(skills)}"
    for title in ("scores", "configuration", "files"):
        changes = found[title]
        yield f"{title}: {'the same' if not changes else f'{len(changes)} differ'}"
        width = max((len(name) for name in changes), default=0)
        for name, (before, after) in changes.items():
            yield f"  {name:<{width}}  {'-' if before is None else before} -> {'-' if after is None else after}"
