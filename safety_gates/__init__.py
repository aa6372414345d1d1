"""Is it releasable, and to whom: evidence, verdicts, signed releases."""
