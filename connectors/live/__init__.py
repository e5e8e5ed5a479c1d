"""Live feeds: from what the sockets bring to records in the raw topics."""
