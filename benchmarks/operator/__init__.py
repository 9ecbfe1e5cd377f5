"""Benchmarks of the four-way operator: speed, memory and derivatives."""
