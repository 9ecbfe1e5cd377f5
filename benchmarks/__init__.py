"""Benchmarks of speed and quality; each module is a command."""
