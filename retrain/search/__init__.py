"""The search: spaces, strategies, studies over worker processes, warm starts."""
