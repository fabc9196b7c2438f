"""Sequential samplers of an autoregressive model."""
