"""Networks of finite width: their shape, their posteriors, and how these are sampled, approximated
or linearized. K networks of one shape are evaluated together, as one tensor of parameters.

- `mlp.py`, `evaluation.py`: the networks, and their values in compiled code.
- `noise_priors.py`, `posterior.py`, `minibatch.py`: what their parameters are conditioned on.
- `sampling.py`, `pyro_model.py`: draws of the posterior.
- `evidence.py`: scales of the prior, and the noise, before any training.
- `gauss_newton.py`, `linearization.py`, `linearized_posterior.py`, `kronecker_posterior.py`: the
  most probable network, and the Gaussian posterior of its linearization.
- `abc_parametrization.py`, `linear_limit.py`: training at large widths, and at infinite width.
- `local_reparameterization.py`, `variational_last_layer.py`: variational posteriors.
"""

from bo_surrogates.networks.mlp import ACTIVATIONS, BatchedMLP, Layer, tanh

__all__ = ["ACTIVATIONS", "BatchedMLP", "Layer", "tanh"]
