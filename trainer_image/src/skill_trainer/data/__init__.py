"""The user's data: read strictly, checked against each other, hashed. See docs/data.md for the forms."""

from skill_trainer.data.duplicates import check_records, warnings_of_suites
from skill_trainer.data.reading import parse_records, read_records
from skill_trainer.data.record import DataError, Kind, Record, data_digest

__all__ = [
    "DataError",
    "Kind",
    "Record",
    "check_records",
    "data_digest",
    "parse_records",
    "read_records",
    "warnings_of_suites",
]
