"""What is kept of a customer: shown, erased, and forgotten in time."""
