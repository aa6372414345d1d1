"""From a signed release to a repository that any static file server can serve: keys, metadata, targets."""
