"""The operator beside a growing number of SkillUpdates: memory, start, rest, speed; prints a table in Markdown.

python -m benchmarks.operator --out DIR [--objects 100 1000 5000] [--active-share 0.2]

Everything but the nodes is real; see docs/scale.md. A size that is in DIR already is not measured again. Times mean
something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks.operator.figure import scale_figure
from benchmarks.operator.measure import Rest, Result, measure


def main() -> None:
    """Measures the sizes one after the other; prints the table and draws DIR/scale.svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results, logs and the figure")
    parser.add_argument("--objects", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--active-share", type=float, default=0.2, help="of the updates, how many train")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = [_result(options.out, count, round(count * options.active_share)) for count in options.objects]
    print(table(results))
    (options.out / "scale.svg").write_text(scale_figure(results))


def _result(out: Path, objects: int, active: int) -> Result:
    path = out / f"{objects}-{active}.json"
    if not path.exists():
        result = asyncio.run(measure((out / f"{objects}-{active}").resolve(), objects, active))
        path.write_text(json.dumps(result.dump(), indent=1))
    return Result.load(json.loads(path.read_text()))


def table(results: list[Result]) -> str:
    """Returns the figures as a table in Markdown."""
    columns = (
        "updates (active)", "RSS, MiB", "peak, MiB", "cold start, s", "event to status p50 / p99, s",
        "requests/min idle", "CPU s/min idle", "requests/min, all report", "CPU s/min, all report",
    )  # fmt: skip
    head = f"| {' | '.join(columns)} |"
    return "\n".join([head, "| --- " * len(columns) + "|", *(_row(result) for result in results)])


def _row(result: Result) -> str:
    cells = (
        f"{result.objects:,} ({result.active:,})",
        f"{result.steady_mib:.0f}",
        f"{result.peak_mib:.0f}",
        f"{result.cold_start_s:.1f}",
        f"{result.percentile(0.5):.2f} / {result.percentile(0.99):.2f}",
        _requests(result.idle),
        f"{result.idle.cpu_s:.1f}",
        _requests(result.reporting),
        f"{result.reporting.cpu_s:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _requests(rest: Rest) -> str:
    """Returns requests by verb; a watch that is opened anew is named for itself."""
    asked = ", ".join(f"{count} {verb}" for verb, count in sorted(rest.requests.items()))
    return asked or "0"


if __name__ == "__main__":
    main()
