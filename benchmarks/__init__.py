"""Benchmarks: rates of every part against limits measured in the same run (`make bench`)."""
