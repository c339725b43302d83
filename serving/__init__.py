"""Answers: the prediction endpoint, its log, and the hot swap."""
