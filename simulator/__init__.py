"""A local exchange: the venues' WebSocket and REST protocols from recordings or a seeded generator, with faults and its own books."""
