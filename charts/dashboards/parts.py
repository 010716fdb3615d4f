"""The kinds of panels that the dashboards are made of: how they look is decided here, once.

What they show is decided by `overview` and `update`. Nothing here names a series.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    ConstantVariable,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    FieldColor,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, prometheus
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

RUNBOOKS = "https://git.example.com/skillupdate/"
"""Stands for where the project's docs/ are read; the chart puts `metrics.prometheusRule.runbookBase` in its place."""
OVERVIEW, UPDATE = "skillupdate-overview", "skillupdate-update"
"""The dashboards' addresses in Grafana: people and alerts link to them."""
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = bargauge.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
P = TypeVar("P", bound=Panel)
Steps = Sequence[tuple[float | None, str]]
"""Colours from a value upwards; the first has None."""

CALM: Steps = ((None, "blue"),)
NONE_IS_GOOD: Steps = ((None, "green"), (1, "red"))
NONE_IS_BEST: Steps = ((None, "green"), (1, "orange"))


@dataclass(frozen=True)
class Query:
    """One question to Prometheus, and how its answers are called."""

    expr: str
    legend: str = ""


def stat_panel(
    title: str, why: str, query: Query, *, unit: str = "short", steps: Steps = CALM, named: bool = False,
    no_value: str = "none", span: int = 4, runbook: str = "",
) -> stat.Panel:  # fmt: skip
    """Returns one large number; with `named` the words of its legend instead."""
    panel = (
        stat.Panel()
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .text_mode(common.BigValueTextMode.NAME if named else common.BigValueTextMode.VALUE)
        .reduce_options(_last())
        .no_value(no_value)
        .height(4)
    )
    return _complete(panel, title, why, (query,), unit=unit, steps=steps, span=span, runbook=runbook, instant=True)


def graph(
    title: str, why: str, *queries: Query, unit: str = "short", steps: Steps = (), stacked: bool = False,
    counts: bool = False, span: int = 8, runbook: str = "", least: float | None = 0, most: float | None = None,
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Returns curves over time; `counts`: bars of what has happened in each hour or longer piece of the time shown.

    Args:
        steps: drawn as dashed lines.
        colors: of curves, by the words of the legend.
    """
    panel = (
        timeseries.Panel()
        .legend(_legend(["lastNotNull", "max"] if not counts else ["sum"]))
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .draw_style(common.GraphDrawStyle.BARS if counts else common.GraphDrawStyle.LINE)
        .line_width(1 if counts else 2)
        .fill_opacity(70 if counts or stacked else 8)
        .show_points(common.VisibilityMode.NEVER if counts or stacked else common.VisibilityMode.AUTO)
        .height(8)
    )
    if stacked or counts:
        panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    if counts:
        panel.interval("1h").decimals(0)
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if steps:
        panel.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED))
    for word, color in (colors or {}).items():
        panel.override_by_name(word, [_fixed(color)])
    return _complete(panel, title, why, queries, unit=unit, steps=steps, span=span, runbook=runbook)


def bars(
    title: str, why: str, *queries: Query, unit: str = "short", steps: Steps = CALM, buckets: bool = False,
    no_value: str = "none in this time", span: int = 8, runbook: str = "", decimals: int | None = None,
) -> bargauge.Panel:  # fmt: skip
    """Returns one bar for each answer; `buckets`: the answers are a histogram's, and each bar is one bucket.

    Grafana sorts buckets by the words of their legend, so that must be `{{le}}` and nothing else.
    """
    panel = (
        bargauge.Panel()
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(_last())
        .min(0)
        .no_value(no_value)
        .height(8)
    )
    if decimals is not None:
        panel.decimals(decimals)
    return _complete(
        panel, title, why, queries, unit=unit, steps=steps, span=span, runbook=runbook, instant=True, heatmap=buckets
    )


def timeline(
    title: str, why: str, *queries: Query, colors: dict[str, str], span: int = 24, height: int = 8, runbook: str = ""
) -> statetimeline.Panel:
    """Returns one lane for each answer, filled while it has a value; `colors` by the answers' words."""
    panel = (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .legend(VizLegendOptions().show_legend(False))
        .row_height(0.8)
        .height(height)
    )
    for word, color in colors.items():
        panel.override_by_name(word, [_fixed(color)])
    return _complete(panel, title, why, queries, unit="short", steps=CALM, span=span, runbook=runbook)


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, and the label or the query that fills it."""

    name: str
    source: str
    """A label, or `A`, `B`, … for the value of the first, second, … query."""
    unit: str = ""
    link: str = ""
    colors: dict[str, str] | None = None
    """Of words."""
    steps: Steps = ()
    gauge: bool = False
    width: int | None = None


def table_panel(
    title: str, why: str, columns: Sequence[Column], *queries: Query, no_value: str, height: int = 9, span: int = 24,
    runbook: str = "",
) -> table.Panel:  # fmt: skip
    """Returns a table with a row for each set of labels; the queries' answers are joined by the labels they share."""
    panel = table.Panel().no_value(no_value).height(height)
    fields = {f"Value #{column.source}" if len(column.source) == 1 else column.source: column for column in columns}
    hidden = {"Time", *(f"Value #{_letter(index)}" for index in range(len(queries))), "Value"} - fields.keys()
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(sorted(hidden), True),
                "indexByName": {field: index for index, field in enumerate(fields)},
                "renameByName": {field: column.name for field, column in fields.items()},
            },
        )
    )
    for column in columns:
        panel.override_by_name(column.name, _cells(column))
    return _complete(panel, title, why, queries, unit="short", steps=(), span=span, runbook=runbook, instant=True)


def _cells(column: Column) -> list[DynamicConfigValue]:
    cells = [_property("unit", column.unit)] if column.unit else []
    if column.width:
        cells.append(_property("custom.width", column.width))
    if column.link:
        cells.append(_property("links", [{"title": "Open", "url": column.link}]))
    if column.gauge:
        cells += [_property("custom.cellOptions", {"type": "gauge", "mode": "basic"})]
        cells += [_property("min", 0), _property("max", 1), _fixed("blue")]
    if column.colors:
        mapping = ValueMap(
            options={w: ValueMappingResult(color=c, index=i) for i, (w, c) in enumerate(column.colors.items())}
        )
        cells += [_property("mappings", [mapping]), _property("custom.cellOptions", {"type": "color-text"})]
    if column.steps:
        cells.append(_property("thresholds", _thresholds(column.steps).build()))
        cells.append(_property("custom.cellOptions", {"type": "color-text"}))
    return cells


def dashboard(
    uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]], *variables: QueryVariable,
    since: str,
) -> str:  # fmt: skip
    """Returns a dashboard's JSON.

    Args:
        rows: titles of the rows, and the panels of each from left to right.
        since: what is shown at first, such as `now-7d`.
    """
    builder = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["skillupdate"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("1m")
        .readonly()
        .link(_to_the_others())
    )
    for variable in (_source_variable(), _runbooks_variable(), *variables):
        builder.with_variable(variable)
    number = 0
    for name, panels in rows:
        builder.with_row(Row(name).id(number := number + 1))
        for panel in panels:
            builder.with_panel(panel.id(number := number + 1))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def choice(name: str, label: str, query: str, *, all_of_them: bool = False) -> QueryVariable:
    """Returns a variable whose values are those of a label; they are asked for the time that is shown."""
    variable = (
        QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": name})
        .datasource(_SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if all_of_them:
        everything = VariableOption(text="All", value="$__all", selected=True)
        variable.multi(True).include_all(True).all_value(".*").current(everything)
    return variable


def _source_variable() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _runbooks_variable() -> ConstantVariable:
    return ConstantVariable("runbooks").value(RUNBOOKS).description("Where docs/ are read")


def _to_the_others() -> DashboardLink:
    link = DashboardLink("SkillUpdate dashboards").type(DashboardLinkType.DASHBOARDS).tags(["skillupdate"])
    return link.keep_time(True).include_vars(True).as_dropdown(False)


def _complete(
    panel: P, title: str, why: str, queries: Sequence[Query], *, unit: str, steps: Steps, span: int, runbook: str,
    instant: bool = False, heatmap: bool = False,
) -> P:  # fmt: skip
    panel.title(title).description(why).datasource(_SOURCE).span(span).unit(unit)
    if steps:
        panel.thresholds(_thresholds(steps))
        by_step = FieldColorModeId.THRESHOLDS if not isinstance(panel, timeseries.Panel) else None
        panel.color_scheme(FieldColor().mode(by_step or FieldColorModeId.PALETTE_CLASSIC))
    if runbook:
        address = f"${{runbooks}}docs/{runbook}"
        link = DashboardLink("What to do").type(DashboardLinkType.LINK).url(address).target_blank(True)
        panel.links([link])
    as_table = isinstance(panel, table.Panel)
    for index, query in enumerate(queries):
        target = Dataquery().expr(query.expr).ref_id(_letter(index)).datasource(_SOURCE).legend_format(query.legend)
        target = target.instant() if instant else target.range()
        formats = prometheus.PromQueryFormat
        if as_table or heatmap:
            target.format(formats.TABLE if as_table else formats.HEATMAP)
        panel.with_target(target)
    return panel


def _thresholds(steps: Steps) -> ThresholdsConfig:
    marks = [Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(marks)


def _legend(calculations: list[str]) -> VizLegendOptions:
    legend = VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.BOTTOM)
    return legend.show_legend(True).calcs(calculations)


def _last() -> ReduceDataOptions:
    return ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _letter(index: int) -> str:
    return "ABCDEFGHIJ"[index]


def _fixed(color: str) -> DynamicConfigValue:
    return _property("color", {"mode": "fixed", "fixedColor": color})


def _property(name: str, value: Any) -> DynamicConfigValue:
    return DynamicConfigValue(id_val=name, value=value)
