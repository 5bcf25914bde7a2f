"""Reports for people: the numbers of a search, its figures, and one self-contained HTML page with both.

Importing this package imports neither matplotlib nor Jinja; writing a report does.
"""

from bonas_core.report.analysis import Correlation, Summary, honest_correlation, summary
from bonas_core.report.page import write_report

__all__ = ["Correlation", "Summary", "honest_correlation", "summary", "write_report"]
