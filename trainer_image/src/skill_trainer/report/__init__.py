"""The report of a run: what was learned, what was kept, and how."""

from skill_trainer.report.answers import side_by_side
from skill_trainer.report.document import DataSet, Drift, Mark, RunReport, ShownAgain, SideBySide, StepPoint
from skill_trainer.report.writing import REPORTS, report_page, write_report

__all__ = [
    "REPORTS",
    "DataSet",
    "Drift",
    "Mark",
    "RunReport",
    "ShownAgain",
    "SideBySide",
    "StepPoint",
    "report_page",
    "side_by_side",
    "write_report",
]
