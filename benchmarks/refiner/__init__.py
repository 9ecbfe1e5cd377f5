"""Benchmarks of the refiner: quality, runtime and the exported ONNX model."""
