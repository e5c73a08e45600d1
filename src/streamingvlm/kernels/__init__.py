"""The operations that this package runs in its own way: plain torch as the reference, kernels for CPUs and GPUs."""
