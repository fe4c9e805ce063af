"""MABWiser's policies, served with exact selection probabilities.

Without a neighbourhood they are compiled into sums (`belief`): MABWiser is not even imported. A neighbourhood
is found by MABWiser itself (`training`, `neighbourhood`) among a bounded history of events (`history`), kept
as an artifact (`artifact`); what is believed within it comes from the same sums. Either way nothing random
is left in a belief, and `arbitration.policy.strategies` makes it probabilities.
"""
