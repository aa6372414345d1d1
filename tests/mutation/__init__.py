"""Faults planted in real packages and recordings; each must be caught by the gate it is aimed at."""
