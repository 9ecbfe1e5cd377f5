"""J and F of coarse masks before and after the refiner, and after other methods; its speed, also in ONNX."""
