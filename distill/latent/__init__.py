"""Latent variables of short mel patches: probabilistic PCA, a variational autoencoder, what their ELBO consists of."""
