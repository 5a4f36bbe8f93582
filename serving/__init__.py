"""Serving: bundles, the onnxruntime engine, the gRPC server and its client (no torch)."""
