"""The production backend: PostgreSQL 14 or newer, and what speaks like it."""
