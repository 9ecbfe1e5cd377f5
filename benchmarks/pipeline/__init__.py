"""Benchmarks of the pipeline: temporal filters and the speed of its evaluation."""
