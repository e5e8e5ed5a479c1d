"""Bytewax flows and the adapter that knows the engine."""
