"""Private gradients of a network, one a patient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.privacy.gradients import PatientGradients

__all__ = ["PrivateNetwork"]

# Layers that make each row of itself alone. Opacus refuses those with buffers: not a batch norm that keeps none.
_OF_ROWS = (nn.Linear, nn.LayerNorm, nn.ReLU, nn.LeakyReLU)


class PrivateNetwork:
    """Gradients of a network's loss, one a patient, by Opacus's hooks.

    Args:
        network: made of linear layers, norms of rows and activations, none of which mixes patients or is used twice
            in a pass.

    The hooks see tensors of shape ``(patients, rows, features)`` and sum over a patient's rows.

    Raises:
        InternalError: the network has another layer.
    """

    def __init__(self, network: nn.Module) -> None:
        from synthehr.models.hooks import FactorHooks

        for layer in network.modules():
            if not any(layer.children()) and not isinstance(layer, _OF_ROWS):
                raise InternalError(f"a layer of type {type(layer).__name__} is not known to keep patients apart")

        # The hooks go on a twin that shares the parameters, so that the network itself stays free of them.
        twin = copy.deepcopy(network, memo={id(p): p for p in network.parameters()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = FactorHooks(twin)
        self.parameters = [p for p in network.parameters() if p.requires_grad]

    def __call__(self, loss: Callable[[nn.Module], Tensor]) -> PatientGradients:
        """The gradient of each patient's loss.

        Args:
            loss: runs the network that it is given once, and returns each patient's loss, shape ``(patients,)``.
        """
        per_patient = loss(self._wrapped)
        with warnings.catch_warnings():
            # Inputs are data and need no gradient; torch warns of that for full backward hooks.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            per_patient.sum().backward()
        parts = [self._wrapped.taken(p, patients=len(per_patient)) for p in self.parameters]
        self._wrapped.zero_grad(set_to_none=True)
        return PatientGradients(parts)

    def set_gradient(self, flat: Tensor) -> None:
        """Write a flat gradient, shape ``(parameters,)``, into the network's ``.grad``, adding to what is there."""
        start = 0
        for parameter in self.parameters:
            part = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
            start += parameter.numel()
