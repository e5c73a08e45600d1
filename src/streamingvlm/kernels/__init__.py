"""Own kernels for the operations of a decoder, each with a twin in plain torch."""
