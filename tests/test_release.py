from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as pld
from safetensors.torch import load_file

import synthehr
from synthehr.cohort import Cohort
from synthehr.errors import ConfigError, DataError
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import TrainingSettings
from synthehr.models.training import train
from synthehr.randomness import InsecureNoise
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.files import load_schema

QUICK = TrainingSettings(bins=8, fit=FitSettings(steps=30))


@pytest.fixture(scope="module")
def release(small_cohort) -> Release:
    return Release.of(train(small_cohort, epsilon=3.0, delta=1e-6, settings=QUICK), datasheet=render_datasheet)


def test_anyone_can_recompose_epsilon_from_the_manifest(release, tmp_path) -> None:
    release.save(tmp_path / "r")
    privacy = json.loads((tmp_path / "r" / "manifest.json").read_text())["privacy"]
    total = pld.identity()
    for event in privacy["events"]:
        if event["type"] == "Gaussian":
            part = pld.from_gaussian_mechanism(event["noise_multiplier"])
        else:
            assert event["type"] == "EpsilonDelta"
            part = pld.from_privacy_parameters(common.DifferentialPrivacyParameters(event["epsilon"], event["delta"]))
        total = total.compose(part.self_compose(event["count"]))
    assert 0.97 * 3.0 <= total.get_epsilon_for_delta(privacy["delta"]) <= 3.0
    assert privacy["epsilon"] == 3.0
    assert privacy["unit"] == "patient"
    assert privacy["neighbours"] == "add-or-remove-one"
    assert privacy["private"] is True


def test_a_release_comes_back_as_it_was_saved(release, tmp_path) -> None:
    release.save(tmp_path / "r")
    again = Release.load(tmp_path / "r")
    assert again.digest == release.digest
    assert again.sample(100, seed=1).root.equals(release.sample(100, seed=1).root)
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "DATASHEET.md",
        "manifest.json",
        "weights.safetensors",
    ]


def test_an_existing_output_is_refused_and_left_alone(release, tmp_path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        release.save(tmp_path / "r")
    with pytest.raises(ConfigError, match="cannot be written"):
        release.save(tmp_path / "absent" / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "DATASHEET.md"])
@pytest.mark.parametrize("harm", ["remove", "truncate", "edit"])
def test_a_harmed_release_is_not_loaded(release, tmp_path, name: str, harm: str) -> None:
    release.save(tmp_path / "r")
    path = tmp_path / "r" / name
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if harm == "truncate" else content.replace(b"e", b"f", 1))
    with pytest.raises(DataError):
        Release.load(tmp_path / "r")


def test_a_manifest_with_a_lower_epsilon_written_in_is_not_loaded(release, tmp_path) -> None:
    release.save(tmp_path / "r")
    path = tmp_path / "r" / "manifest.json"
    path.write_text(path.read_text().replace('"epsilon": 3.0', '"epsilon": 0.1'))
    with pytest.raises(DataError, match="edited"):
        Release.load(tmp_path / "r")


def test_the_same_seed_gives_the_same_cohort_and_another_does_not(release) -> None:
    first, second, other = (release.sample(500, seed=seed).root for seed in (1, 1, 2))
    assert first.equals(second)
    assert not first.equals(other)


def test_where_is_met_by_every_patient_and_the_match_rate_told(release) -> None:
    synthetic = release.sample(300, seed=0, where="age >= 60 and sex = 'female'")
    assert synthetic.root.height == 300
    assert (synthetic.root["age"] >= 60).all()
    assert (synthetic.root["sex"] == "female").all()
    plain = release.sample(20_000, seed=0).root
    share = ((plain["age"] >= 60) & (plain["sex"] == "female")).mean()
    assert synthetic.provenance.match_rate == pytest.approx(share, abs=0.02)
    assert release.sample(10, seed=0).provenance.match_rate is None


def test_rows_that_break_a_declared_rule_are_not_made(small_cohort) -> None:
    document = small_cohort.schema.model_dump(mode="json", exclude_defaults=True) | {"synthehr": 1}
    schema = load_schema(document | {"rules": ["age >= 40 or not died"]})
    frame = small_cohort.root.filter((pl.col("age") >= 40) | ~pl.col("died"))
    trained = train(Cohort({"patient": frame}, schema=schema), epsilon=0.5, delta=1e-6, settings=QUICK)
    synthetic = Release.of(trained, datasheet=render_datasheet).sample(5000, seed=0)
    assert synthetic.root.filter((pl.col("age") < 40) & pl.col("died")).height == 0
    assert synthetic.provenance.rule_rate is not None
    assert synthetic.provenance.rule_rate < 1.0


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("age > 500", DataError, "impossible"),
        ("sex = 'unknown'", DataError, "impossible"),
        ("age > 70 and age < 60", DataError, "impossible"),
        ("weight = 0", DataError, "impossible"),
        ("height > 1", ConfigError, "height"),
        ("age >", ConfigError, "--where"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(release, where: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        release.sample(10, seed=0, where=where)


def test_the_provenance_tells_how_rows_came_about_and_whose_shares_they_show(release) -> None:
    plain, old, compared = (
        release.sample(200, seed=0, where=where).provenance for where in ((), "age >= 60", "age > weight")
    )
    assert [p.drawing.method for p in (plain, old, compared)] == ["plain", "direct", "rejection"]
    assert plain.shares == "Shares are the model's."
    assert "who meet the conditions" in old.shares
    balanced = release.sample(201, seed=0, where="age >= 60", balance="sex").provenance
    assert "even shares by request" in balanced.shares
    assert balanced.balance.column == "sex"
    assert sorted(group.patients for group in balanced.balance.groups) == [100, 101]
    assert sum(group.model_share for group in balanced.balance.groups) == pytest.approx(1.0)
    assert balanced.match_rate == pytest.approx(old.match_rate, rel=0.1)


def test_handing_patients_over_in_parts_gives_the_same_cohort_with_keys_that_go_on(release) -> None:
    parts: list[dict[str, pl.DataFrame]] = []
    provenance = release.sample_to(parts.append, 70_000, seed=3)
    whole = release.sample(70_000, seed=3)
    assert len(parts) > 1
    assert max(part[whole.schema.subject].height for part in parts) < 70_000
    assert pl.concat([part[whole.schema.subject] for part in parts]).equals(whole.root)
    assert provenance == whole.provenance
    assert whole.root["patient_id"].to_list() == [f"S{at:07d}" for at in range(1, 70_001)]


def test_fewer_than_one_patient_is_refused(release) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        release.sample(0)


def test_a_fit_with_test_noise_is_stamped_and_not_sampled(small_cohort) -> None:
    trained = train(small_cohort, epsilon=3.0, delta=1e-6, settings=QUICK, noise=InsecureNoise(0))
    insecure = Release.of(trained, datasheet=render_datasheet)
    assert insecure.manifest.privacy.private is False
    assert "NOT PRIVATE" in insecure.datasheet
    with pytest.raises(ConfigError, match="NOT PRIVATE"):
        insecure.sample(10)
    assert insecure.sample(10, allow_insecure=True).provenance.private is False


def numbers(document: object) -> list[float]:
    """Every number of a JSON document, but positions on a column's public grid."""
    if isinstance(document, dict):
        return [n for key, value in document.items() if key != "starts" for n in numbers(value)]
    if isinstance(document, list):
        return [n for value in document for n in numbers(value)]
    return [float(document)] if isinstance(document, int | float) else []


def read_csv_numbers(text: bytes) -> list[float]:
    frame = pl.read_csv(text).select(cs.numeric().cast(pl.Float64))
    return [value for column in frame for value in column.drop_nulls()]


def test_planted_canaries_are_in_no_byte_of_the_release(small_schema, small_cohort, tmp_path, caplog, capfd) -> None:
    document = small_schema.model_dump(mode="json", exclude_defaults=True)
    document["synthehr"] = 1
    columns = document["tables"]["patient"]["columns"]
    columns["city"] = {"kind": "category"}
    columns["cost"] = {"kind": "number"}
    schema = load_schema(document)
    cost = np.random.default_rng(0).normal(100, 10, len(small_cohort))
    cost[7] = 987654.321
    city = ["Springfield"] * len(small_cohort)
    city[7] = "CANARYVILLE"
    frame = small_cohort.root.with_columns(city=pl.Series(city), cost=pl.Series(cost)).with_columns(
        patient_id=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("CANARY-ID-007")).otherwise("patient_id")
    )
    with caplog.at_level(logging.DEBUG):
        cohort = Cohort({"patient": frame}, schema=schema)
        trained = train(cohort, epsilon=3.0, delta=1e-6, model="dp-ctgan", settings=QUICK, on_progress=print)
        made = Release.of(trained, datasheet=render_datasheet)
        made.save(tmp_path / "r")
        synthetic = made.sample(3000, seed=0).root.write_csv().encode()
    texts = [path.read_bytes() for path in (tmp_path / "r").iterdir()]
    texts += [
        synthetic,
        caplog.text.encode(),
        *(part.encode() for part in capfd.readouterr()),
        repr(cohort).encode(),
    ]
    for canary in (b"CANARY", b"987654.3", np.float64(987654.321).tobytes()):
        assert not any(canary in text for text in texts)
    # As a number it is looked for however it is rounded: six digits in a text would turn up by chance.
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    tensors = load_file(tmp_path / "r" / "weights.safetensors").values()
    found = [*numbers(manifest), *(float(v) for t in tensors for v in t.flatten()), *read_csv_numbers(synthetic)]
    assert len(found) > 10_000
    assert not any(abs(abs(value) - 987654.321) < 1.0 for value in found)
    assert any(abs(value - 987654.321) < 1.0 for value in numbers({"a": [1, {"b": 987654}]})), "the search works"
    assert b"Springfield" in b"".join(texts), "a value that many share is found, so the search works"


def _is_schema(node: ast.expr) -> bool:
    """Whether an expression is what a cohort is declared to be, whose tables are declarations and no rows."""
    if isinstance(node, ast.Attribute):
        return node.attr in {"schema", "_schema"}
    return isinstance(node, ast.Name) and node.id == "schema"


def test_private_rows_are_read_behind_the_door_alone() -> None:
    """No module on the way to a release reads rows, but the door and the step through it."""
    package = Path(synthehr.__file__).parent
    # A baseline reads rows as it likes: it is no way to a release, see "No release comes of a baseline" in pyproject.
    allowed = {"privacy/rows.py", "encoding/codec.py", "encoding/unroll.py", "models/baselines.py"}
    hidden = {"_frame", "_codes", "_owners", "_weight", "_first", "_rows_of"}
    for folder in ("privacy", "encoding", "models"):
        for path in (package / folder).glob("*.py"):
            name = path.relative_to(package).as_posix()
            if name in allowed:
                continue
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute):
                    assert node.attr not in hidden | {
                        "tables",
                        "owners",
                        "to_pandas",
                        "take",
                        "bounded",
                        "split_rows",
                    } or _is_schema(node.value), f"{name}:{node.lineno} reads {node.attr}"


def test_the_datasheet_names_columns_and_account(release) -> None:
    for text in ("differential privacy", "add-or-remove-one", "| weight | number |", "| pairs | Gaussian |"):
        assert text in release.datasheet
