"""Raw topic logs behind one contract."""
