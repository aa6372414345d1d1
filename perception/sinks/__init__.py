"""Where published frames go: one file a kind of sink, one table in `perception.sinks.table`."""
