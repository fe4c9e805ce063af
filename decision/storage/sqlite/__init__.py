"""The embedded backend: one SQLite file, nothing to start."""
