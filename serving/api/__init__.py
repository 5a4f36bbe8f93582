"""The two gRPC services and their codecs."""
