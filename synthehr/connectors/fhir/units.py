"""Bring measured values into one unit a code, by the public conversions of ``schemas/fhir/r4/units.yaml``."""

from __future__ import annotations

from functools import cache

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field

from synthehr._files import shipped

__all__ = ["in_one_unit"]

_DIGITS = 7  # of a converted value; conversions must not make digits that nobody measured


class _Conversion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: str = Field(alias="from")
    to: str
    factor: float
    offset: float = 0.0
    codes: tuple[str, ...] = ()


class _Units(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    spellings: dict[str, str]
    conversions: tuple[_Conversion, ...]


def in_one_unit(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with ``value`` and ``unit`` converted by their ``code``; what no conversion fits stays as it is."""
    spellings, by_code, by_unit = _tables()
    here = frame.join(spellings.lazy(), left_on="unit", right_on="_written", how="left", maintain_order="left")
    here = here.with_columns(pl.coalesce("_ucum", "unit").alias("unit")).drop("_ucum")
    here = here.join(by_code.lazy(), on=["unit", "code"], how="left", maintain_order="left")
    here = here.join(by_unit.lazy(), on="unit", how="left", maintain_order="left", suffix="_any")
    to, factor, added = (pl.coalesce(f"_{part}", f"_{part}_any") for part in ("to", "factor", "offset"))
    value = pl.when(to.is_null() | ((factor == 1) & (added == 0))).then(pl.col("value"))
    converted = (pl.col("value") * factor + added).round_sig_figs(_DIGITS)
    return here.with_columns(value.otherwise(converted).alias("value"), pl.coalesce(to, "unit").alias("unit")).drop(
        "_to", "_factor", "_offset", "_to_any", "_factor_any", "_offset_any"
    )


@cache
def _tables() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Spellings, conversions of one code, and conversions of any code."""
    text = shipped("schemas/fhir/r4/units.yaml").read_text(encoding="utf-8")
    units = _Units.model_validate(yaml.safe_load(text))
    spellings = pl.DataFrame(
        list(units.spellings.items()), schema={"_written": pl.String, "_ucum": pl.String}, orient="row"
    )
    by_code = [(c.source, code, c.to, c.factor, c.offset) for c in units.conversions for code in c.codes]
    by_unit = [(c.source, c.to, c.factor, c.offset) for c in units.conversions if not c.codes]
    measured = {"_to": pl.String, "_factor": pl.Float64, "_offset": pl.Float64}
    return (
        spellings,
        pl.DataFrame(by_code, schema={"unit": pl.String, "code": pl.String, **measured}, orient="row"),
        pl.DataFrame(by_unit, schema={"unit": pl.String, **measured}, orient="row"),
    )
