"""The demonstration: a simulated world to decide in and learn from."""
