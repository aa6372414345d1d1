"""Output decoders: one file a family, one table in `perception.decode`."""
