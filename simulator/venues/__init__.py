"""The venues that can be simulated."""
