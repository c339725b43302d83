"""Families of networks: each builds a module from a candidate and owns its search dimensions."""
