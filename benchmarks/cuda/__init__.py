"""The CUDA kernels: bytes, instructions, registers and predicted time without a GPU, measured time with one."""
