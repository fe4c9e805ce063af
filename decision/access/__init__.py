"""Who may do what: keys, tokens, scopes and rates."""
