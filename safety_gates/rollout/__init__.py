"""From a signed release to a fleet: stages, evidence from the field, decisions, and their proof by simulation."""
