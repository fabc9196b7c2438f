r"""WaveVAE: a Gaussian WaveNet encodes, inverse-autoregressive flows decode, both trained from scratch by one bound.

Peng et al. 2020, arXiv 1905.08459, section 4. The encoder whitens x, one pass:

    q(z_t | x_<=t) = N((x_t - mu(x_<t, mel)) / sigma(x_<t, mel), eps^2)

The decoder is a student. Its flow f has x_t = m_t(z_<t) + s_t(z_<t) z_t, and p(x | z) is Gaussian around it. Synthesis
is the student's, f at prior noise: everything that takes a student takes a WaveVAE. Paper -> code: eps ->
exp(log_posterior_scale), mu_tot, sigma_tot -> loc, scale of Sample.distribution, eta -> exp(log_output_scale).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.latent.posteriors import Gaussian as Posterior
from distill.student import Sample, Student
from distill.wavevae.config import WaveVAEConfig
from wavenet.distributions.gaussian import Gaussian
from wavenet.emphasis import pre_emphasis
from wavenet.pitch.contour import Pitch
from wavenet.prediction import whiten
from wavenet.teacher import Teacher


class Elbo(NamedTuple):
    """log p(x_t | z, x_<t) at a draw z ~ q(z | x), KL(q(z_t | x) || N(0, 1)), both (B, T) [nats]; the decoder's pass.

    Their difference, summed over t, is an unbiased estimate of a lower bound of log p(x | mel), a density of wav.
    """

    reconstruction: Tensor
    kl: Tensor
    sample: Sample
    posterior: Posterior

    @property
    def bound(self) -> Tensor:
        """The ELBO of each sample, (B, T) [nats]."""
        return self.reconstruction - self.kl


class WaveVAE(Student):
    """A student, that is prior noise (B, T) and mel (B, M, F) -> wav (B, T), and the encoder that it learns from.

    `log_prob`, exact and sequential as every student's, is the density of what `sample` draws, the flow's output
    without the noise around it.
    """

    config: WaveVAEConfig

    def __init__(self, config: WaveVAEConfig) -> None:
        super().__init__(config)
        self.encoder = Teacher(config.teacher)
        self.log_posterior_scale = nn.Parameter(torch.tensor(math.log(config.posterior_scale)))
        self.log_output_scale = nn.Parameter(torch.tensor(math.log(config.output_scale)))

    def posterior(self, wav: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Posterior:
        """q(z | x): mean and scale (B, T) for wav (B, T) and mel (B, M, F), in one pass.

        Raises UserError when the lengths do not fit.
        """
        law = self.encoder(wav, mel, speaker)
        loc = (wav - law.loc) * torch.exp(-law.log_scale)
        return Posterior(loc, self.log_posterior_scale.exp().expand_as(loc))

    def likelihood(self, wav: Tensor, mel: Tensor, sample: Sample) -> Gaussian:
        r"""p(x_t | z, x_<t), batch shape (B, T), at the decoder's pass of z: p(x | z) is the product over t.

        With y the flow's output, w_t = sum_j w_tj (x - y)_{t-j}, w_t0 = 1, is the difference through pre-emphasis and,
        with config.whitening, the whitening filter of the mel: w_t ~ N(0, (eta s_t)^2). One step ahead, x_t is
        held against the flow's mean given z_<t: w_t + y_t - m_t ~ N(0, s_t^2). Both maps of x are unit triangular, so
        this is a density of x.
        """
        law = sample.distribution
        white = pre_emphasis(wav - sample.wav, self.config.pre_emphasis)
        if self.encoder.prediction is not None:
            rest, scale = whiten(white, self.encoder.prediction(mel), self.encoder.prediction.kernel)
            white = white + rest / scale
        if self.config.likelihood == "one_step_ahead":
            return Gaussian(wav - white - (sample.wav - law.loc), law.log_scale)
        return Gaussian(wav - white, law.log_scale + self.log_output_scale)

    def elbo(
        self,
        wav: Tensor,
        mel: Tensor,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        offset: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """The bound's terms at one draw of z; arguments as in `forward`, differentiable in all weights."""
        posterior = self.posterior(wav, mel, speaker)
        noise, _ = posterior.draw(1, generator)
        sample = self(noise[0], mel, speaker, pitch, offset)
        likelihood = self.likelihood(wav, mel, sample).log_prob(wav)
        return Elbo(likelihood, posterior.kl_to_standard_normal(), sample, posterior)

    @torch.no_grad()
    def importance_weighted(
        self, wav: Tensor, mel: Tensor, draws: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """log (1/k) sum_i p(x | z_i) p(z_i) / q(z_i | x) [nats], (B,), of k draws z_i ~ q(z | x).

        Its expectation is the ELBO at k = 1, rises with k, and goes to log p(x) (Burda et al. 2016, arXiv 1509.00519):
        a tighter bound for signals of a few samples, for the weights' variance grows with T.
        """
        posterior = self.posterior(wav, mel)
        noise, log_q = posterior.draw(draws, generator)
        weights = []
        for z, log_density in zip(noise, log_q, strict=True):
            reconstruction = self.likelihood(wav, mel, self(z, mel)).log_prob(wav).sum(1)
            weights.append(reconstruction + self.base(wav).log_prob(z).sum(1) - log_density)
        return torch.stack(weights).logsumexp(0) - math.log(draws)
