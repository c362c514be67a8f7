"""Virtual machines, guests, scenarios, experiments and verdicts."""
