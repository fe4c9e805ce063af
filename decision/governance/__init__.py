"""Who may change what customers see, when, and how it is stopped."""
