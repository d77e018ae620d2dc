"""The promise asked for: epsilon and delta, and the neighbours they speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from synthehr.errors import BudgetExceededError, ConfigError

__all__ = ["NEIGHBOURS", "UNIT", "Budget"]

UNIT: Final = "patient"
NEIGHBOURS: Final = "add-or-remove-one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An (epsilon, delta) differential-privacy promise for one patient with all of that patient's rows.

    Raises:
        ConfigError: epsilon is not a finite number above 0, or delta does not lie strictly between 0 and 1.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ConfigError(f"epsilon must be a finite number above 0, not {self.epsilon}")
        if not 0.0 < self.delta < 1.0:
            raise ConfigError(f"delta must lie strictly between 0 and 1, not {self.delta}")

    def check_delta(self, *, patients_bought: int, ratio: float, policy: str) -> None:
        """Refuse a delta that would let whole patients slip out.

        Args:
            patients_bought: the noisy count of patients.
            ratio: delta may be at most ``ratio / patients_bought``.
            policy: its name, for the message.

        Raises:
            BudgetExceededError: delta is above that.
        """
        limit = ratio / max(patients_bought, 1)
        if self.delta > limit:
            raise BudgetExceededError(
                f"policy {policy!r} allows delta up to {limit:.2g} for a cohort of this size, "
                f"but {self.delta:.2g} was asked for: lower --delta or choose another policy"
            )
