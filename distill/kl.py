r"""KL(p_s || p_t) = H(p_s, p_t) - H(p_s), per sample, both terms apart (arXiv 1711.10433, section 4).

For x ~ p_s, the sum over t of KL(p_s(x_t | z_<t) || p_t(x_t | x_<t)) is an unbiased estimate of KL(p_s || p_t), because
x_<t and z_<t determine each other. Nothing is clamped here: scale floors live in the distributions.
Batch shape (B, T) in and (B, T) nats out, unless said otherwise; differentiable in both arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic


def entropy(student: Logistic | Gaussian) -> Tensor:
    """H(p_s(x_t | z_<t)): log s + 2 for a logistic, log s + log(2 pi e) / 2 for a normal."""
    result: Tensor = student.entropy()
    return result


def kl_gaussian(student: Gaussian, teacher: Gaussian) -> Tensor:
    """Closed form: log(s_p / s_q) + (s_q^2 - s_p^2 + (m_p - m_q)^2) / (2 s_p^2), q the student, p the teacher."""
    log_ratio = student.log_scale - teacher.log_scale
    distance = (teacher.loc - student.loc) * torch.exp(-teacher.log_scale)
    # expm1: near equality (s_q / s_p)^2 - 1 would lose all its digits.
    return 0.5 * (torch.expm1(2 * log_ratio) + distance**2) - log_ratio


def cross_entropy_gaussian(student: Gaussian, teacher: Gaussian) -> Tensor:
    """H(p_s, p_t) in closed form."""
    return kl_gaussian(student, teacher) + entropy(student)


def scale_regulariser(student: Gaussian, teacher: Gaussian) -> Tensor:
    """(log s_p - log s_q)^2, ClariNet's separate term (Ping et al. 2018, arXiv 1807.07281, equation 7)."""
    return (teacher.log_scale - student.log_scale) ** 2


def stratified_uniforms(like: Tensor, draws: int, generator: torch.Generator | None = None) -> Tensor:
    """u (n, *like.shape) in (0, 1), one in each stratum: u_i = (i + U_i) / n, U_i uniform."""
    uniform = torch.rand(draws, *like.shape, generator=generator, dtype=like.dtype).to(like.device)
    strata = torch.arange(draws, dtype=like.dtype, device=like.device).reshape(-1, *[1] * like.dim())
    return (strata + uniform) / draws


def stratified_draws(student: Logistic | Gaussian, draws: int, generator: torch.Generator | None = None) -> Tensor:
    """n fresh draws of every x_t from p_s(x_t | z_<t), stratified, (n, B, T); differentiable in the student."""
    return student.transform(stratified_uniforms(student.loc, draws, generator)[..., None])


def cross_entropy_at(draws: Tensor, teacher: Distribution) -> Tensor:
    """-mean_i log p_t(x_t^(i) | x_<t) of draws (n, B, T) -> (B, T), under the parameters of one teacher pass.

    Two teachers scored at the same draws are compared without the draws' own variance.
    """
    result: Tensor = -teacher.log_density(draws).mean(0)  # type: ignore[attr-defined]
    return result


def cross_entropy(
    student: Logistic | Gaussian, teacher: Distribution, draws: int, generator: torch.Generator | None = None
) -> Tensor:
    """H(p_s, p_t) by n fresh stratified draws of x_t from p_s(x_t | z_<t), scored under one teacher pass.

    The context is never resampled: `teacher` comes from a single pass over the student's own sample. The teacher's
    continuous density is used (`log_density`), so that the difference to the differential entropy is a KL. Unbiased for
    every n; stratification takes most of the variance of independent draws away.
    """
    return cross_entropy_at(stratified_draws(student, draws, generator), teacher)


def flow_log_density(base: Distribution, noise: Tensor, log_det: Tensor) -> Tensor:
    """log q(x) (B,) of x = f(z), for any flow that knows log_det (B,) = log |det dx/dz|: log p_base(z) - log_det.

    noise z (B, T), `base` element-wise. No inverse is needed: z is known where x was made from it.
    """
    result: Tensor = base.log_prob(noise).sum(1) - log_det
    return result


def log_ratio(base: Distribution, noise: Tensor, log_det: Tensor, teacher: Distribution, wav: Tensor) -> Tensor:
    """log q(x) - log p_t(x) (B,) [nats a signal] at the flow's own x (B, T): an unbiased estimate of KL(q || p_t).

    Needs no law of x_t given the past, so it serves flows that have none (coupling layers); the price is variance.
    """
    return flow_log_density(base, noise, log_det) + cross_entropy_at(wav[None], teacher).sum(1)
