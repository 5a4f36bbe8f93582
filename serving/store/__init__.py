"""Bundles and model stores: manifests, golden requests, local and remote directories."""
