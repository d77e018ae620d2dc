"""Release: what a fit gives away, and all that sampling sees.

A release is a folder of ``manifest.json``, ``weights.safetensors`` and ``DATASHEET.md``. It holds bought and
declared things only; there is no pickle in it. The manifest names the digests of the other files and its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from synthehr.cohort import Cohort
from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.records import column_of, record_of
from synthehr.encoding.unroll import ConditionalTable, conditional_tables
from synthehr.errors import ConfigError, DataError, SchemaError
from synthehr.manifest import (
    BalanceRecord,
    DrawingRecord,
    GroupRecord,
    Manifest,
    ModelRecord,
    PrivacyRecord,
    Provenance,
    TableRecord,
)
from synthehr.models.base import Trained
from synthehr.models.columns import Learned
from synthehr.models.drawing import Drawing
from synthehr.models.packing import child_table, patients_table
from synthehr.models.patients import Patients, joined, structural_rules
from synthehr.models.sampling import Sampler
from synthehr.randomness import fresh_seed
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema
from synthehr.schema.rules import Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Manifest", "Provenance", "Release", "SyntheticCohort"]

_PACKAGES = ("torch", "opacus", "opendp", "dp-accounting", "numpy", "polars")


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
            tables={
                name: TableRecord(
                    domain=tuple(record_of(column) for column in table.domain),
                    conditionals=table.terms,
                )
                for name, table in trained.per_table.items()
                if name != trained.schema.subject
            },
            outcomes=trained.per_table[trained.schema.subject].terms,
            max_rows={name: most for name, most in trained.max_rows.items() if name != trained.schema.subject},
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
        return cls(manifest, weights=save(_named_weights(trained)), datasheet=datasheet(manifest))

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
        balance: str | None = None,
        allow_insecure: bool = False,
    ) -> SyntheticCohort:
        """A synthetic cohort of ``n`` patients; no private row is at hand, so it costs nothing.

        Args:
            n: number of patients.
            seed: same release, arguments and seed give the same cohort.
            where: conditions that every patient meets, for example ``age >= 65 and sex = 'female'``. The other
                columns are distributed as the model has them in such patients. Where the model can be held to a
                condition, rows are drawn inside it, else until enough meet it; the provenance tells which.
            balance: a category, code or boolean column whose values get even shares, within ``where``: rare ones are
                boosted. Patients who miss it are left out, and so are values that ``where`` or the model leaves
                no room for.
            allow_insecure: sample even though the release is stamped not private.

        Raises:
            ConfigError: n is below 1, a condition is no condition, the column cannot be balanced, or the release is
                stamped not private.
            DataError: the conditions or the rules cannot be met, or so rarely that no cohort can be made.
        """
        parts: list[dict[str, pl.DataFrame]] = []
        provenance = self.sample_to(
            parts.append, n, seed=seed, where=where, balance=balance, allow_insecure=allow_insecure
        )
        return SyntheticCohort(joined(parts), schema=self.schema, provenance=provenance)

    def sample_to(
        self,
        write: Callable[[dict[str, pl.DataFrame]], object],
        n: int,
        *,
        seed: int | None = None,
        where: str | Sequence[str] = (),
        balance: str | None = None,
        allow_insecure: bool = False,
    ) -> Provenance:
        """Draw the same patients as :meth:`sample`, but hand them over part by part, in memory that is flat in ``n``.

        Args:
            write: called with the tables of each part of the patients, in order.
            n: see :meth:`sample`.
            seed: see :meth:`sample`.
            where: see :meth:`sample`.
            balance: see :meth:`sample`.
            allow_insecure: see :meth:`sample`.
        """
        if n < 1:
            raise ConfigError(f"the number of patients must be at least 1, not {n}")
        if not self.manifest.privacy.private and not allow_insecure:
            raise ConfigError(
                f"this release is NOT PRIVATE ({self.manifest.privacy.why_not}): "
                "sample it only for tests, with --allow-insecure"
            )
        seed = fresh_seed() if seed is None else seed
        made, learned, subject = self.tables, self.learned, self.schema.subject
        drawing = Drawing(
            Sampler.of(learned[subject]),
            self.domain,
            made[subject].table,
            rules=[
                *(rule for rule in self.schema.parsed_rules if rule.table == subject),
                *structural_rules(made, self.schema),
            ],
            conditions=self._conditions(where),
            balance=balance,
            rows=n,
            seed=seed,
        )
        patients = Patients(drawing, learned, made, schema=self.schema, total=n, seed=seed)
        for tables in patients.batches():
            write(tables)
        return self._provenance(drawing, patients, n, seed=seed, balance=balance)

    @cached_property
    def tables(self) -> dict[str, ConditionalTable]:
        """What each table is learned as, ancestors first."""
        return conditional_tables(self.schema, {self.schema.subject: 1, **self.manifest.max_rows})

    @cached_property
    def learned(self) -> dict[str, Learned]:
        """What was learned of each table, ancestors first.

        Raises:
            DataError: the weights cannot be read, or do not fit the manifest.
        """
        made, subject, tensors = self.tables, self.schema.subject, self._tensors()
        shape, outcomes = self.manifest.model.generator, self.manifest.outcomes
        own = {name: value for name, value in tensors.items() if "/" not in name}
        own |= _of_table(tensors, subject)
        found = {subject: patients_table(made[subject], self.domain, shape, outcomes, own)}
        for name, record in self.manifest.tables.items():
            mine = _of_table(tensors, name)
            domain = [column_of(column) for column in record.domain]
            parent = self.schema.tables[name].parent
            assert parent is not None, "the patients' own table is not among them"
            found[name] = child_table(made[name], domain, found[parent], record.conditionals, mine)
        return found

    def _conditions(self, where: str | Sequence[str]) -> tuple[Rule, ...]:
        texts = (where,) if isinstance(where, str) else tuple(where)
        try:
            conditions = tuple(self.schema.condition(text) for text in texts)
        except ValueError as error:
            raise ConfigError(str(error).replace("rule ", "--where ", 1)) from error
        for condition in conditions:
            if condition.table != self.schema.subject:
                raise ConfigError(
                    f"--where {condition.text!r} is on rows of table {condition.table!r}: "
                    f"it can hold patients to conditions on table {self.schema.subject!r} alone"
                )
        return conditions

    def _provenance(
        self, drawing: Drawing, patients: Patients, n: int, *, seed: int, balance: str | None
    ) -> Provenance:
        privacy = self.manifest.privacy
        balanced = None
        if balance is not None:
            balanced = BalanceRecord(
                column=balance,
                groups=tuple(
                    GroupRecord(value=g.value, patients=g.patients, model_share=g.model_share) for g in drawing.groups
                ),
                left_out={str(value): why for value, why in drawing.left_out.items()},
            )
        return Provenance(
            release_digest=self.digest,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            unit=privacy.unit,
            private=privacy.private,
            why_not=privacy.why_not,
            patients=n,
            seed=seed,
            where=tuple(rule.text for rule in drawing.conditions),
            match_rate=drawing.match_rate,
            rule_rate=drawing.rule_rate if self.schema.rules else None,
            drawing=DrawingRecord(method=drawing.method, parts=drawing.parts, most_of_one=drawing.most_of_one),
            balance=balanced,
            rows_left_out={name: count for name, count in patients.left_out.items() if count},
            shares=_whose_shares(where=bool(drawing.conditions), balance=balance),
            versions={"synthehr": version("synthehr")},
        )

    @cached_property
    def domain(self) -> tuple[ColumnDomain, ...]:
        """The cells of every column."""
        return tuple(column_of(record) for record in self.manifest.domain)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the release by name; those of child tables have a slash in it.

        Raises:
            DataError: the file of weights cannot be read.
        """
        return self._tensors()

    def _tensors(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return dict(load(self._weights))
        except SafetensorError as error:
            raise DataError("weights.safetensors of the release cannot be read") from error


def _of_table(tensors: Mapping[str, Tensor], table: str) -> dict[str, Tensor]:
    """The tensors that have the table's name before theirs, without it."""
    return {name.removeprefix(f"{table}/"): value for name, value in tensors.items() if name.startswith(f"{table}/")}


def _named_weights(trained: Trained) -> dict[str, Tensor]:
    """The weights of all tables; the table's name stands before theirs, but for those of the patients' generator."""
    subject = trained.schema.subject
    return {
        name if table == subject and "/" not in name else f"{table}/{name}": value
        for table, found in trained.per_table.items()
        for name, value in found.weights.items()
    }


def _whose_shares(*, where: bool, balance: str | None) -> str:
    if balance is not None:
        return f"Values of {balance!r} have even shares by request: neither they nor what follows them are the model's."
    return "Shares are the model's among patients who meet the conditions." if where else "Shares are the model's."


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
