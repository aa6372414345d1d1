"""Inference engines behind one protocol: one file a kind, one table in `perception.engines.table`."""
