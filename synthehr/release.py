"""Release: what a fit gives away, and all that sampling sees.

A release is a folder of ``manifest.json``, ``weights.safetensors`` and ``DATASHEET.md``. It holds bought and
declared things only; there is no pickle in it. The manifest names the digests of the other files and its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from synthehr.cohort import Cohort
from synthehr.encoding.codec import decode
from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.records import column_of, record_of
from synthehr.errors import ConfigError, DataError, SchemaError
from synthehr.manifest import Manifest, ModelRecord, PrivacyRecord, Provenance
from synthehr.models.base import Trained, load_generator, sample_codes
from synthehr.randomness import fresh_seed, seeded
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import IdColumn, Schema
from synthehr.schema.rules import Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Manifest", "Provenance", "Release", "SyntheticCohort"]

_PACKAGES = ("torch", "opacus", "opendp", "dp-accounting", "numpy", "polars")
_ROUND = 32768
_HOPE = 16
_PATIENCE = 200


class SyntheticCohort(Cohort[Schema]):
    """A cohort that a release made, with its provenance."""

    __slots__ = ("provenance",)

    def __init__(self, tables: Mapping[str, pl.DataFrame], *, schema: Schema, provenance: Provenance) -> None:
        super().__init__(tables, schema=schema)
        self.provenance = provenance


class Release:
    """A fitted model with its account.

    Attributes:
        manifest: schema, domain, account, versions, digests.
        datasheet: the text of DATASHEET.md.
    """

    def __init__(self, manifest: Manifest, *, weights: bytes, datasheet: str) -> None:
        self.datasheet = datasheet
        self._weights = weights
        digests = {"weights.safetensors": _sha256(weights), "DATASHEET.md": _sha256(datasheet.encode())}
        self.manifest = manifest.model_copy(update={"digests": digests})

    @classmethod
    def of(cls, trained: Trained, *, datasheet: Callable[[Manifest], str]) -> Release:
        """The release of a fit; ``datasheet`` writes its text from the manifest."""
        from safetensors.torch import save

        why_not = trained.why_not_private
        manifest = Manifest(
            schema=dump_schema(trained.schema),
            domain=tuple(record_of(column) for column in trained.domain),
            model=ModelRecord(
                name=trained.model,
                chosen_because=trained.chosen_because,
                generator=trained.shape,
                seed=trained.seed,
            ),
            patients_bought=trained.patients_bought,
            privacy=PrivacyRecord(
                epsilon=trained.budget.epsilon,
                delta=trained.budget.delta,
                private=why_not is None,
                why_not=why_not,
                policy=trained.policy,
                required_suite=trained.required_suite,
                audit_required=trained.audit_required,
                noise=trained.noise,
                epsilon_spent=trained.epsilon_spent,
                events=trained.events,
            ),
            versions={"synthehr": version("synthehr"), **{name: version(name) for name in _PACKAGES}},
        )
        return cls(manifest, weights=save(dict(trained.weights)), datasheet=datasheet(manifest))

    @property
    def epsilon(self) -> float:
        """The promised epsilon."""
        return self.manifest.privacy.epsilon

    @property
    def delta(self) -> float:
        """The promised delta."""
        return self.manifest.privacy.delta

    @cached_property
    def schema(self) -> Schema:
        """What the release makes: the schema it was fitted under."""
        return load_schema(self.manifest.schema_)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the digests of the other files."""
        return _sha256(_canonical(self.manifest.model_dump(mode="json", by_alias=True)))

    def save(self, path: str | Path) -> None:
        """Write the release folder, whole or not at all.

        Raises:
            ConfigError: the path exists, or its parent folder cannot be written.
        """
        target = Path(path)
        if target.exists():
            raise ConfigError(f"output {str(target)!r} exists: choose another path or remove it")
        document = {**self.manifest.model_dump(mode="json", by_alias=True), "digest": self.digest}
        try:
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise ConfigError(f"output {str(target)!r} cannot be written: its parent must be a folder") from error
        try:
            (aside / "manifest.json").write_text(_readable(document), encoding="utf-8")
            (aside / "weights.safetensors").write_bytes(self._weights)
            (aside / "DATASHEET.md").write_text(self.datasheet, encoding="utf-8")
            aside.chmod(0o755)
            os.rename(aside, target)  # noqa: PTH104 - Path.rename would do the same
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> Release:
        """Read a release folder and check every digest.

        Raises:
            DataError: a file is missing, truncated, edited, or of another version.
        """
        folder = Path(path)
        contents = {name: _read(folder, name) for name in ("manifest.json", "weights.safetensors", "DATASHEET.md")}
        try:
            document = json.loads(contents["manifest.json"])
            claimed = document.pop("digest")
            if claimed != _sha256(_canonical(document)):
                raise DataError(f"release {str(folder)!r}: manifest.json was edited after it was written")
            manifest = Manifest.model_validate(document)
            datasheet = contents["DATASHEET.md"].decode()
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"release {str(folder)!r}: manifest.json is not a whole manifest of this version"
            ) from error
        for name, digest in manifest.digests.items():
            if digest != _sha256(contents.get(name, b"")):
                raise DataError(f"release {str(folder)!r}: {name} is not the file that the manifest names")
        release = cls(manifest, weights=contents["weights.safetensors"], datasheet=datasheet)
        try:
            _ = release.schema
        except SchemaError as error:
            raise DataError(f"release {str(folder)!r}: its schema is not of this version") from error
        return release

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        where: str | Sequence[str] = (),
        allow_insecure: bool = False,
    ) -> SyntheticCohort:
        """A synthetic cohort of ``n`` patients; no private row is at hand, so it costs nothing.

        Args:
            n: number of patients.
            seed: same release, seed and n give the same cohort.
            where: conditions that every patient meets, for example ``age >= 65 and sex = 'female'``. Rows are
                drawn until enough meet them; the share that did is in the provenance.
            allow_insecure: sample even though the release is stamped not private.

        Raises:
            ConfigError: n is below 1, a condition is no condition, or the release is stamped not private.
            DataError: the condition or the rules are met so rarely that no cohort can be made.
        """
        if n < 1:
            raise ConfigError(f"the number of patients must be at least 1, not {n}")
        if not self.manifest.privacy.private and not allow_insecure:
            raise ConfigError(
                f"this release is NOT PRIVATE ({self.manifest.privacy.why_not}): "
                "sample it only for tests, with --allow-insecure"
            )
        seed = fresh_seed() if seed is None else seed
        conditions = self._conditions(where)
        frame, match_rate, rule_rate = self._draw(n, seeded(seed, 2), conditions)
        privacy = self.manifest.privacy
        provenance = Provenance(
            release_digest=self.digest,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            unit=privacy.unit,
            private=privacy.private,
            why_not=privacy.why_not,
            patients=n,
            seed=seed,
            where=tuple(rule.text for rule in conditions),
            match_rate=match_rate,
            rule_rate=rule_rate,
            versions={"synthehr": version("synthehr")},
        )
        return SyntheticCohort({self.schema.subject: frame}, schema=self.schema, provenance=provenance)

    def _conditions(self, where: str | Sequence[str]) -> tuple[Rule, ...]:
        texts = (where,) if isinstance(where, str) else tuple(where)
        try:
            return tuple(self.schema.condition(text) for text in texts)
        except ValueError as error:
            raise ConfigError(str(error).replace("rule ", "--where ", 1)) from error

    def _draw(
        self, n: int, draws: np.random.Generator, conditions: Sequence[Rule]
    ) -> tuple[pl.DataFrame, float | None, float | None]:
        generator = load_generator(self.domain, self.manifest.model.generator, self._tensors())
        rules = self.schema.parsed_rules
        kept: list[pl.DataFrame] = []
        drawn = lawful = matched = 0
        while matched < n:
            rounds = drawn // _ROUND
            if (rounds >= _HOPE and not matched) or (rounds >= _PATIENCE and matched * _PATIENCE < n):
                raise DataError(
                    f"of {drawn} rows drawn only {matched} met the rules and --where: "
                    "the condition is next to impossible in this release; loosen it"
                )
            rows = _ROUND if conditions or rules else n - drawn
            codes = sample_codes(generator, self.domain, rows=rows, draws=draws)
            frame = decode(codes, domain=self.domain, table=self.schema.root, generator=draws)
            drawn += frame.height
            frame = _meeting(frame, rules)
            lawful += frame.height
            frame = _meeting(frame, conditions)
            matched += frame.height
            kept.append(frame)
        frame = self._with_keys(pl.concat(kept).head(n))
        return frame, matched / lawful if conditions else None, lawful / drawn if rules else None

    def _with_keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The table in its declared order, with new keys where it has any."""
        width = max(7, math.ceil(math.log10(frame.height + 1)))
        key = pl.Series([f"S{at:0{width}d}" for at in range(1, frame.height + 1)], dtype=pl.String)
        columns = [
            key.alias(name) if isinstance(column, IdColumn) else frame[name]
            for name, column in self.schema.root.columns.items()
            if isinstance(column, IdColumn) or name in frame.columns
        ]
        return pl.DataFrame(columns)

    @cached_property
    def domain(self) -> tuple[ColumnDomain, ...]:
        """The cells of every column."""
        return tuple(column_of(record) for record in self.manifest.domain)

    def _tensors(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return dict(load(self._weights))
        except SafetensorError as error:
            raise DataError("weights.safetensors of the release cannot be read") from error


def _meeting(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    for rule in rules:
        frame = frame.filter(rule.holds(frame))
    return frame


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"release {str(folder)!r} lacks {name}: it is not a whole release") from error


def _readable(document: Mapping[str, Any]) -> str:
    """JSON with one line for each bulky part and indented lines for what people read."""
    lines = (
        f" {json.dumps(key)}: "
        + (json.dumps(value) if key in {"schema", "domain"} else json.dumps(value, indent=1).replace("\n", "\n "))
        for key, value in document.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
