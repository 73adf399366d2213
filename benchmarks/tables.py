"""Plain text tables, as `embedpack bench` prints them."""

from __future__ import annotations

from embedpack_export.evaluation.text_table import text_table as table

__all__ = ["table"]
