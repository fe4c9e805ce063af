"""What-if: what another catalog would have done with the decisions of the log, and what it brings."""
