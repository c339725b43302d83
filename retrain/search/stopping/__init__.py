"""Early stopping: which trials are not worth their remaining epochs."""
