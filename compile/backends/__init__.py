"""Build, time and reload engines: one file an engine kind."""
