"""Export of a trained ranker to ONE ONNX graph that computes only the experts that are selected."""

from models.export.exporter import ExportReport, as_json, export

__all__ = ["ExportReport", "as_json", "export"]
