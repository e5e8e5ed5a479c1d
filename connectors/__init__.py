"""The way in: venue decoders (pure) and topic logs."""
