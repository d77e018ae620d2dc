"""Synthesizers in the manner of SDV: they take its Metadata and give pandas tables, and are differentially private.

sdv itself is not loaded: Metadata and conditions are read by their own methods. See
:func:`synthehr.schema.sdv.schema_of` for what of the metadata is taken for public.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack

from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.pipeline import DELTA, fit, load_release, read
from synthehr.privacy.budget import Budget
from synthehr.privacy.paying import LedgerOptions
from synthehr.schema.model import IdColumn, Schema
from synthehr.schema.sdv import MetadataSource, entries_for, entries_of, load_metadata, schema_of
from synthehr.sdv.tables import Form, Tables, readable, the_table

if TYPE_CHECKING:
    import pandas as pd

    from synthehr.release import Release

__all__ = ["DPCTGANSynthesizer", "DPMarginalSynthesizer", "DPSynthesizer", "DPTVAESynthesizer"]


class DPSynthesizer:
    """The three synthesizers' common base.

    Each row is one patient. Columns of personal data are dropped, and keys made anew as text. A synthesizer is fitted
    once: a second fit would spend epsilon on the same patients again. scikit-learn's ``clone`` makes one that is not.

    Args:
        metadata: SDV's ``Metadata`` of one table, or the mapping that its ``to_dict()`` gives.
        epsilon: the promise to each patient; smaller protects more.
        delta: its slack.
        bounds: public (lowest, highest) by column; ranges of the others are bought from the budget. Dates need them.
        categories: public values by column; those of the others are bought, and rare ones become ``OTHER``.
        kinds: ``integer`` or ``boolean`` by column, where the metadata does not tell.
        public_ranges: the ranges, values, rounding and missing values that the metadata states were reviewed by a
            person and are public. SDV's detection reads them off the records, so that they are not by default.
        outcome: columns that matter most.
        policy: name or YAML file of a release profile.
        seed: moves initial weights alone, never the noise.
        device: ``auto``, ``cpu`` or a torch device.
        noise: ``system``, or ``cryptographic``, which is slower.
        enforce_min_max_values: as SDV names it; always true, since no value leaves the bounds.
        enforce_rounding: as SDV names it; always true, for what is rounded is declared (``decimal_places`` with
            ``public_ranges``) and not learned.

    Raises:
        ConfigError: epsilon or delta is outside what it may be, or one of the last two is false.
        SchemaError: the metadata says what cannot be carried over.
    """

    _model: ClassVar[str]

    def __init__(
        self,
        metadata: MetadataSource,
        *,
        epsilon: float,
        delta: float = DELTA,
        bounds: Mapping[str, Sequence[Any]] | None = None,
        categories: Mapping[str, Sequence[str | int | float]] | None = None,
        kinds: Mapping[str, Literal["integer", "boolean"]] | None = None,
        public_ranges: bool = False,
        outcome: str | Sequence[str] = (),
        policy: str | Path = "standard",
        seed: int | None = None,
        device: str = "auto",
        noise: str = "system",
        enforce_min_max_values: bool = True,
        enforce_rounding: bool = True,
    ) -> None:
        self.metadata = metadata
        self.epsilon = epsilon
        self.delta = delta
        self.bounds = bounds
        self.categories = categories
        self.kinds = kinds
        self.public_ranges = public_ranges
        self.outcome = outcome
        self.policy = policy
        self.seed = seed
        self.device = device
        self.noise = noise
        self.enforce_min_max_values = enforce_min_max_values
        self.enforce_rounding = enforce_rounding
        self._release: Release | None = None
        self._form = Form()
        self._check()

    def __repr__(self) -> str:
        """Class, promise and whether it is fitted; not the metadata, which may quote values of records."""
        fitted = "fitted" if self._release is not None else "not fitted"
        return f"{type(self).__name__}(epsilon={self.epsilon}, delta={self.delta}, {fitted})"

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - scikit-learn's signature
        """All parameters by name, as scikit-learn asks for them."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Change parameters, as scikit-learn does; a fitted synthesizer keeps what it was fitted with.

        Raises:
            ConfigError: there is no such parameter, one cannot be right, or the synthesizer is fitted.
        """
        if self._release is not None:
            raise ConfigError("a fitted synthesizer keeps its parameters: make a new one")
        unknown = [name for name in params if name not in self._names()]
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no parameter {unknown[0]!r}: see get_params()")
        before = self.get_params()
        try:
            for name, value in params.items():
                setattr(self, name, value)
            self._check()
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def get_parameters(self) -> dict[str, Any]:
        """All parameters but the metadata, as SDV gives them."""
        return {name: value for name, value in self.get_params().items() if name != "metadata"}

    def get_metadata(self) -> Any:
        """The metadata that was given, as SDV's own ``Metadata``. Loads sdv."""
        return load_metadata(entries_of(self.metadata))

    @property
    def release(self) -> Release:
        """The release that the fit made, with its account.

        Raises:
            ConfigError: there is none yet.
        """
        if self._release is None:
            raise ConfigError(f"{type(self).__name__} is not fitted: call fit first")
        return self._release

    def fit(self, data: Tables, **paid: Unpack[LedgerOptions]) -> Self:
        """Learn the records under differential privacy.

        Args:
            data: the table as a pandas DataFrame, or by name in a dict, as SDV 2 has it. Samples come in the same form.
            paid: ``ledger``, the file to spend from, with ``population``, ``by`` and ``why``.

        Returns:
            The synthesizer itself.

        Raises:
            ConfigError: it is fitted already, or a setting is outside what it may be.
            DataError: the records do not follow the metadata.
            BudgetExceededError: the policy, the rule on delta or the ledger refuses.

        Privacy: the whole of epsilon is spent; the release carries the account. A fit that was refused or broke off may
        have spent of it too, and the synthesizer can be fitted again: only a ledger counts both.
        """
        if self._release is not None:
            raise ConfigError(
                f"{type(self).__name__} is fitted: a second fit would spend epsilon {self.epsilon} on the same "
                "patients again, and both releases count together; make a new synthesizer, and keep a ledger"
            )
        form, cohort = self._read(data)
        self._release = fit(
            cohort,
            epsilon=self.epsilon,
            delta=self.delta,
            model=self._model,
            policy=self.policy,
            seed=self.seed,
            device=self.device,
            noise=self.noise,
            **paid,
        )
        self._form = form
        return self

    def sample(self, num_rows: int, *, seed: int | None = None, where: str | Sequence[str] = ()) -> Tables:
        """Synthetic patients, in the form in which the records were given; a loaded synthesizer gives a dict.

        Args:
            num_rows: how many.
            seed: same seed, same patients.
            where: conditions that all of them meet, see :meth:`synthehr.release.Release.sample`.

        Raises:
            ConfigError: nothing was fitted, or a setting is outside what it may be.
            DataError: next to no patient meets the conditions.
        """
        return self._form.give(
            self.release.sample(num_rows, seed=seed, where=where).root.to_pandas(), schema=self.release.schema
        )

    def sample_from_conditions(self, conditions: Sequence[Any], *, seed: int | None = None) -> Tables:
        """Synthetic patients who meet SDV's ``Condition`` and ``DataFrameCondition`` objects, in their order.

        Raises:
            ConfigError: nothing was fitted, or a condition is of no learned column or of another table.
            DataError: next to no patient meets a condition.
        """
        rows: list[dict[Any, Any]] = []
        for condition in conditions:
            table = getattr(condition, "table_name", None)
            if table not in (None, self.release.schema.subject):
                raise ConfigError(
                    f"a condition is on table {table!r}: the metadata's is {self.release.schema.subject!r}"
                )
            if hasattr(condition, "get_dataframe"):
                rows += condition.get_dataframe().to_dict("records")
            elif hasattr(condition, "get_column_values"):
                rows += [condition.get_column_values()] * condition.get_num_rows()
            else:
                raise ConfigError("conditions must be a list of SDV's Condition or DataFrameCondition objects")
        return self._meeting(rows, seed=seed)

    def sample_remaining_columns(self, known_columns: pd.DataFrame, *, seed: int | None = None) -> Tables:
        """For each row of ``known_columns`` a synthetic patient with its values, in the same order.

        Raises:
            ConfigError: nothing was fitted, or a column is not a learned one.
            DataError: next to no patient has the values of a row.
        """
        return self._meeting(known_columns.to_dict("records"), seed=seed)

    def save(self, filepath: str | Path) -> None:
        """Write the release folder. There is no pickle in it, and nothing that was not bought or declared.

        Raises:
            ConfigError: nothing was fitted, or the path exists.
        """
        self.release.save(filepath)

    @classmethod
    def load(cls, filepath: str | Path) -> Self:
        """The synthesizer of a release folder; its metadata is what the release's schema says.

        Raises:
            DataError: the folder is no whole release.
            ConfigError: the release is of another model, or of several tables.
        """
        release = load_release(filepath)
        name, privacy = release.manifest.model.name, release.manifest.privacy
        if name != cls._model:
            raise ConfigError(f"release {str(filepath)!r} is of model {name!r}, not {cls._model!r}: load it as that")
        made = cls(
            entries_for(release.schema.model_copy(update={"rules": ()})),
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            public_ranges=True,
            outcome=release.schema.root.outcome,
            policy=privacy.policy,
            noise=privacy.noise,
        )
        made._release = release
        return made

    def _check(self) -> None:
        Budget(epsilon=self.epsilon, delta=self.delta)
        for name in ("enforce_min_max_values", "enforce_rounding"):
            if getattr(self, name) is not True:
                raise ConfigError(f"{name} must be true: values lie within bounds that are public or bought")
        self._schema()

    def _schema(self) -> Schema:
        tables = entries_of(self.metadata)["tables"]
        if len(tables) > 1:
            raise ConfigError("this version learns one table with one row per patient; the metadata has several")
        return schema_of(
            self.metadata,
            public_ranges=self.public_ranges,
            bounds=self.bounds,
            categories=self.categories,
            kinds=self.kinds,
            outcome=self.outcome,
        )

    def _read(self, data: object) -> tuple[Form, Cohort[Schema]]:
        """The records as a cohort, and the form in which samples are to come."""
        name, entry = next(iter(entries_of(self.metadata)["tables"].items()))
        frame, as_frame = the_table(data, name=name)
        schema = self._schema()  # of the metadata alone: pandas' types change where one patient's value is missing
        plain, formats = readable(frame, entries=entry["columns"], schema=schema)
        form = Form(as_frame=as_frame, types=dict(frame.dtypes), formats=formats)
        return form, read(plain, schema=schema)

    def _meeting(self, rows: Sequence[Mapping[Any, Any]], *, seed: int | None) -> Tables:
        """For each row of wanted values a synthetic patient, in order; equal rows are drawn together."""
        import pandas as pd

        if not rows:
            raise ConfigError("there is no condition: give at least one")
        schema = self.release.schema
        places: dict[tuple[str, ...], list[int]] = {}
        for at, row in enumerate(rows):
            where = tuple(self._form.condition(str(name), value, schema=schema) for name, value in row.items())
            places.setdefault(where, []).append(at)
        drawn = []
        for number, (where, rows_at) in enumerate(places.items()):
            mine = self.release.sample(len(rows_at), seed=None if seed is None else seed + number, where=where)
            drawn.append(mine.root.to_pandas().set_axis(rows_at, axis="index"))
        frame = pd.concat(drawn).sort_index()
        for name, column in schema.root.columns.items():
            if isinstance(column, IdColumn):  # each draw has counted its own patients
                frame[name] = [f"S{at:07d}" for at in range(1, len(frame) + 1)]
        return self._form.give(frame, schema=schema)


class DPCTGANSynthesizer(DPSynthesizer):
    """CTGAN under differential privacy of each patient; see :class:`DPSynthesizer` for its parameters."""

    _model = "dp-ctgan"


class DPTVAESynthesizer(DPSynthesizer):
    """TVAE under differential privacy of each patient; see :class:`DPSynthesizer` for its parameters."""

    _model = "dp-tvae"


class DPMarginalSynthesizer(DPSynthesizer):
    """A generator fitted to bought histograms alone; see :class:`DPSynthesizer` for its parameters."""

    _model = "marginal"
