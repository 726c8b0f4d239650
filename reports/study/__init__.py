"""The report of a comparison study."""

from reports.study.report import write_report

__all__ = ["write_report"]
