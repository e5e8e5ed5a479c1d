"""One module a venue: its bytes to our trades. No sockets, files or clocks."""
