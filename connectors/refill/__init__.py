"""What a disconnect lost, asked for again over REST."""
