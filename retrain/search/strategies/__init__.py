"""How the next candidate is chosen: one file a strategy, every one on every space."""
