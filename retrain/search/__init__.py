"""The search: spaces, strategies, early stopping, workers, and the session that makes a bundle."""
