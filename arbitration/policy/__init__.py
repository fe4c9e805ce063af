"""Learning policies: one additive posterior, several strategies that turn it into probabilities."""
