"""`python -m decision` is `decision`."""

from decision.cli import main

main()
