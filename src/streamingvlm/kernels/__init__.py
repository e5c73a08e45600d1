"""Our own kernels, each with a plain torch twin: Triton on GPUs, native code on CPUs."""
