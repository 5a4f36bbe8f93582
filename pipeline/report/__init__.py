"""The HTML report of a run: one file that opens anywhere, without a network and without scripts."""

from pipeline.report.report_page import render, write_report

__all__ = ["render", "write_report"]
