"""Measures and judges: windows of the inference log, data quality, shift, uncertainty, performance, policies."""
