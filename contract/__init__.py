"""What crosses a boundary between the packages: errors, settings, schema, inputs, hashes, files and names."""
