"""The network one sample at a time on a GPU, compiled by Triton."""
