"""Where frames come from: one file a kind of recording, one table in `perception.sources.table`."""
