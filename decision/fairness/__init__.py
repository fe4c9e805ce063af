"""Fairness: what is shown to whom, and accepted, by sensitive attributes; bounds on it."""
