"""Fleets that never were, to see what the decisions do with them: how often they err, and how soon they act."""
