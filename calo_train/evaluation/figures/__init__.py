"""All figures and tables of an evaluation, in the order of the report."""

from __future__ import annotations

from calo_train.evaluation.figures.gallery import (
    SECTIONS,
    Item,
    ReportTable,
    report_items,
    shows,
)
from calo_train.evaluation.figures.style import ReportFigure

__all__ = ["SECTIONS", "Item", "ReportFigure", "ReportTable", "report_items", "shows"]
