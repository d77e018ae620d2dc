"""The whole tree of errors. Every message states the rule, what was found and the way out.

No message quotes a value from a patient's record.
"""

from __future__ import annotations

__all__ = [
    "BudgetExceededError",
    "ConfigError",
    "DataError",
    "InternalError",
    "NotFitToPublishError",
    "SchemaError",
    "SynthehrError",
]


class SynthehrError(Exception):
    """Base of every error that synthehr raises on purpose."""

    exit_code = 1


class SchemaError(SynthehrError, ValueError):
    """A schema file breaks a rule of the schema language."""

    exit_code = 3


class DataError(SynthehrError, ValueError):
    """Records or release files are missing, unreadable or break the schema."""

    exit_code = 3


class ConfigError(SynthehrError, ValueError):
    """A setting or option is outside what it may be."""

    exit_code = 2


class BudgetExceededError(SynthehrError, RuntimeError):
    """A request would spend more privacy than the account, the policy or the delta rule allows."""

    exit_code = 4


class InternalError(SynthehrError, AssertionError):
    """A promise of the code itself did not hold; nothing was released."""

    exit_code = 1


class NotFitToPublishError(SynthehrError, AssertionError):
    """A report does not show that its cohort may be published."""

    exit_code = 5
