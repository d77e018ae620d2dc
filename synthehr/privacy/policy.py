"""Release profiles: how a budget is shared out and what a fit may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synthehr._files import shipped
from synthehr.errors import BudgetExceededError, ConfigError

__all__ = ["Policy", "Shares", "load_policy"]


class Shares(BaseModel):
    """Parts of the budget by use. The count's is a part of epsilon; the others are in zCDP terms and sum to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: float = Field(default=0.01, gt=0, lt=0.03, description="Of epsilon: the number of patients.")
    domain: float = Field(default=0.10, gt=0, lt=1, description="Cells and one-way histograms.")
    choice: float = Field(default=0.05, gt=0, lt=1, description="Weighing which pairs and triples to buy.")
    pairs: float = Field(default=0.55, gt=0, lt=1, description="Histograms of two columns.")
    triples: float = Field(default=0.15, gt=0, lt=1, description="Histograms of three columns.")
    gradients: float = Field(
        default=0.15, gt=0, lt=1, description="Private gradients; spread over the others without them."
    )

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        total = self.domain + self.choice + self.pairs + self.triples + self.gradients
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"domain, choice, pairs, triples and gradients must sum to 1, not {total:g}")
        return self


class Policy(BaseModel):
    """A release profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    max_epsilon: float = Field(gt=0, description="A larger epsilon is refused.")
    delta_ratio: float = Field(gt=0, description="Delta may be at most this over the bought count of patients.")
    selection_delta: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Part of delta for naming values that the schema does not declare.",
    )
    shares: Shares = Shares()
    max_rows: int = Field(
        default=200,
        ge=1,
        description="Rows of a patient in each table: what a table without max_rows gets, and the most it may declare.",
    )
    cap_age: int | None = Field(
        default=None,
        ge=1,
        description="Ages, and times of as many years, of this and more are read as this (Safe Harbor: 90).",
    )
    suite: str | None = Field(
        default=None,
        min_length=1,
        description="Suite (name, or path of a YAML file) by which a release is evaluated; no other lets it pass.",
    )
    audit: bool = Field(default=False, description="Must the report hold an audit of epsilon before it can pass?")
    models: tuple[str, ...] | None = Field(default=None, min_length=1, description="Models allowed; all without it.")
    noise: Literal["system", "cryptographic"] | None = Field(
        default=None, description="The noise source required; any without it."
    )

    def row_bounds(self, declared: Mapping[str, int | None]) -> dict[str, int]:
        """Rows that a patient may bring to each table: the declared number, or the policy's where none is.

        Args:
            declared: ``max_rows`` of each child table, by name; None where the schema declares none.
        """
        return {table: self.max_rows if rows is None else rows for table, rows in declared.items()}

    def check(self, declared: Mapping[str, int | None], *, epsilon: float, model: str, noise: str) -> None:
        """Refuse a fit that the policy does not allow. Looks at settings alone, never at records.

        The rule for delta needs the bought count: see :meth:`synthehr.privacy.budget.Budget.check_delta`.

        Args:
            declared: ``max_rows`` of each child table, by name; None where the schema declares none.
            epsilon: the promise asked for.
            model: the model asked for. ``auto`` is allowed where all models are, or where it is listed.
            noise: name of the noise source.

        Raises:
            BudgetExceededError: epsilon, the model, the noise source or a declared number of rows is not allowed.
        """
        if epsilon > self.max_epsilon:
            raise BudgetExceededError(
                f"policy {self.name!r} allows epsilon up to {self.max_epsilon:g}, but {epsilon:g} was asked for: "
                "ask for less or choose another policy"
            )
        for table, rows in declared.items():
            if rows is not None and rows > self.max_rows:
                raise BudgetExceededError(
                    f"policy {self.name!r} allows max_rows up to {self.max_rows}, but table {table!r} declares {rows}: "
                    "declare less or choose another policy"
                )
        if self.models is not None and model not in self.models:
            raise BudgetExceededError(
                f"policy {self.name!r} allows the models {', '.join(self.models)}, but {model!r} was asked for: "
                "choose one of them or another policy"
            )
        if self.noise is not None and noise != self.noise:
            raise BudgetExceededError(
                f"policy {self.name!r} requires {self.noise!r} noise, but {noise!r} was asked for: "
                f"use --noise {self.noise} or another policy"
            )


def load_policy(name: str | Path) -> Policy:
    """A shipped policy by name (strict, standard, exploratory), or one from a YAML file.

    Raises:
        ConfigError: there is none of that name, or the file breaks a rule; the message has the key's path.
    """
    import yaml

    folder = shipped("privacy/policies")
    path = folder / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ConfigError(f"policy {str(name)!r} is neither one of {known} nor a file")
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        says = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"policy {str(name)!r}: {where or 'file'}: {says}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"policy {str(name)!r} is not a readable YAML file") from error
