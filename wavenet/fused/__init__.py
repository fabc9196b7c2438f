"""The network one sample at a time, compiled: the engine of the `fused` sampler and of exact student likelihoods."""
