"""Export: the log of decisions with probabilities, contexts and rewards, as data scientists want it."""
