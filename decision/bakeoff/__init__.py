"""The bake-off: any set of policies learning side by side from one logged data set. See docs/bakeoff.md."""
