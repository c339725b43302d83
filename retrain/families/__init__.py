"""Families of networks for tables."""
