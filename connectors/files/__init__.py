"""Captured frames and raw records in files."""
