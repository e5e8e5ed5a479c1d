"""The pure core: what a trade, a gap and a candle are. No network, files, threads, clock, logging or environment."""
