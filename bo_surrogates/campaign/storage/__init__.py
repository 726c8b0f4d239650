"""Storage of campaigns: a journal in an SQLite file or in PostgreSQL, and its one writer.

What Ax needs is read from the journal (see `ax_bridge.py`) and never stored by Ax itself: its own
store writes 0.1 to 0.4 s a trial, growing with their number, knows one database a process, and
silently loses results when two processes write.
"""

from bo_surrogates.campaign.storage.database import NoDatabaseError
from bo_surrogates.campaign.storage.journal import Journal, completed
from bo_surrogates.campaign.storage.rows import Report
from bo_surrogates.campaign.storage.schema import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "Journal", "NoDatabaseError", "Report", "completed"]
