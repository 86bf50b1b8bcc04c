"""Benchmarks: a file a question, the floor and the rivals in the same run, correctness asserted inside."""
