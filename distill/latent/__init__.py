"""Latent variables of short mel patches: probabilistic PCA, a variational autoencoder, and what their ELBO consists of."""
