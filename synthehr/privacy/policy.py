"""Release profiles: how a budget is shared out and what a fit may ask for."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synthehr._files import shipped
from synthehr.errors import ConfigError

__all__ = ["Policy", "Shares", "load_policy"]


class Shares(BaseModel):
    """Parts of the budget by use. The count's is a part of epsilon; the others are in zCDP terms and sum to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: float = Field(default=0.01, gt=0, lt=0.03, description="Of epsilon: the number of patients.")
    domain: float = Field(default=0.10, gt=0, lt=1, description="Cells and one-way histograms.")
    pairs: float = Field(default=0.75, gt=0, lt=1, description="Pair histograms, where gradients are bought.")
    gradients: float = Field(default=0.15, gt=0, lt=1, description="The critic; goes to pairs where there is none.")

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        total = self.domain + self.pairs + self.gradients
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"domain, pairs and gradients must sum to 1, not {total:g}")
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
