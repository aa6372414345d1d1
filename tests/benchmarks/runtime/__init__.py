"""What the deadline runtime costs and holds, beside its peers: `make bench-runtime`."""
