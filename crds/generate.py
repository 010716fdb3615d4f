"""Carries the CRD to the two places that repeat it: the chart's copy, and the field tables of docs/api.md.

`make crds` runs it; tests hold both places against the CRD. It never writes the CRD itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CRD = ROOT / "crds/skillupdates.sdft.dev.yaml"
CHART_COPY = ROOT / "charts/skillupdate/files/skillupdates.sdft.dev.yaml"
PAGE = ROOT / "docs/api.md"
Row = tuple[str, ...]
BLOCK = re.compile(r"(<!-- (\w+):begin[^\n]*-->\n).*?(<!-- \2:end -->)", re.DOTALL)


def page_with_tables(page: str, crd: str) -> str:
    """Returns the page with everything between `<!-- spec:begin -->` and `<!-- spec:end -->` (and so on) made anew."""
    schema = yaml.safe_load(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return BLOCK.sub(lambda block: f"{block[1]}{tables(schema['properties'][block[2]])}{block[3]}", page)


def tables(schema: dict[str, Any]) -> str:
    """Returns one Markdown table for each object right below a schema, and a last one for its plain fields."""
    parts, plain = [], []
    for name, child in schema["properties"].items():
        rows = list(_rows(child, name))
        if "properties" in child:
            parts.append(f"#### `{name}`\n\n{child['description']}\n\n{_table(rows)}")
        else:
            plain += [_row(name, child, required=False), *rows]
    return "\n".join([*parts, f"#### Further fields\n\n{_table(plain)}"])


def _table(rows: list[Row]) -> str:
    columns = ["field", "type", "default", "meaning"]
    if not any(row[2] for row in rows):  # a status has no defaults
        columns.remove("default")
        rows = [(row[0], row[1], row[3]) for row in rows]
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _rows(schema: dict[str, Any], path: str) -> Iterator[Row]:
    holder = schema.get("items", schema)
    prefix = f"{path}[]" if "items" in schema else path
    for name, child in holder.get("properties", {}).items():
        here = f"{prefix}.{name}"
        yield _row(here, child, required=name in holder.get("required", ()))
        yield from _rows(child, here)


def _row(path: str, schema: dict[str, Any], *, required: bool) -> Row:
    default = "**required**" if required else _default(schema)
    return f"`{path}`", _type(schema), default, " ".join(schema["description"].split())


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    kind = str(schema["type"])
    kind = {"array": "list", "object": "map" if "additionalProperties" in schema else "object"}.get(kind, kind)
    return kind + "".join(
        f" {sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema
    )


def _default(schema: dict[str, Any]) -> str:
    """Returns a default as it may be written in YAML; nothing for an empty one."""
    default = schema.get("default")
    if default in (None, {}, "", []):
        return ""
    return f"`{default if 'enum' in schema else json.dumps(default)}`"


def main() -> None:
    """Writes the chart's copy and the page."""
    crd = CRD.read_text()
    CHART_COPY.write_text(crd)
    PAGE.write_text(page_with_tables(PAGE.read_text(), crd))


if __name__ == "__main__":
    main()
