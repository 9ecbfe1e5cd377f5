"""Benchmarks of the CUDA kernels: traffic, instructions, registers and predicted runtime, and timings on a GPU."""
