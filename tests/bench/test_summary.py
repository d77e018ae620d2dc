from __future__ import annotations

import csv

from grid import FIELDS
from summary import render

PLAIN = {
    "table": "nafld1",
    "epsilon": "3.0",
    "delta": "1e-05",
    "status": "ok",
    "rows": "14039",
    "columns": "7",
    "fit_seconds": "10.4",
    "fit_cpu_seconds": "8",
    "tv2_floor": "0.05",
    "tv3_floor": "0.06",
    "trtr": "0.9",
    "c2st": "0.7",
    "tstr_low": "0.75",
    "tstr_high": "0.85",
    "versions": "python 3.11.7",
    "machine": "x86_64, 2 cores",
    "threads": "1",
    "cap": "1800 s wall",
}


def rendered(tmp_path, *lines):
    results, out = tmp_path / "some.csv", tmp_path / "some.md"
    with results.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        writer.writeheader()
        writer.writerows({**PLAIN, **line} for line in lines)
    render(results, out)
    return out.read_text().replace("\u2013", "-")


def ours(seed, tv2, tv3, tstr, **more):
    return {"method": "marginal", "seed": str(seed), "tv2": str(tv2), "tv3": str(tv3), "tstr": str(tstr), **more}


def test_several_fits_are_their_median_and_extremes_and_one_has_limits_of_its_auc(tmp_path):
    text = rendered(
        tmp_path,
        ours(0, 0.03, 0.05, 0.80),
        ours(1, 0.02, 0.06, 0.82),
        ours(2, 0.07, 0.04, 0.81),
        {"method": "smartnoise-mst", "seed": "0", "tv2": "0.2", "tv3": "0.3", "tstr": "0.8"},
    )
    pairs, triples, auc = "0.030 (0.020-0.070)", "0.050 (0.040-0.060)", "0.810 (0.800-0.820)"
    assert f"| 3 | marginal | {pairs} | {triples} | {auc} | 0.700 (0.700-0.700) | 10 | 8 | 3 |" in text
    assert "| 3 | smartnoise-mst | 0.200 | 0.300 | 0.800 (0.750-0.850) | 0.700 | 10 | 8 | 1 |" in text
    assert "|  | real | 0.050 | 0.060 | 0.900 |  |  |  |  |" in text


def test_what_did_not_end_or_failed_stands_in_the_table(tmp_path):
    text = rendered(
        tmp_path,
        {"method": "smartnoise-dpctgan", "seed": "0", "status": "did not end"},
        {"method": "mostlyai", "seed": "0", "status": "failed: ValueError: a | b"},
    )
    assert "| 3 | smartnoise-dpctgan | did not end (cap 1800 s wall) |  |  |  |  |  | 0 of 1 |" in text
    assert "| 3 | mostlyai | failed: ValueError: a \\| b |  |  |  |  |  | 0 of 1 |" in text


def test_ours_is_divided_by_the_peers_of_the_same_table_and_epsilon(tmp_path):
    # pairs 0.03 / 0.12 = 0.25, triples 0.05 / 0.20 = 0.25, gap (0.9 - 0.85) / (0.9 - 0.7) = 0.25, seconds 8 / 80 = 0.1
    peer = {
        "method": "smartnoise-aim",
        "seed": "0",
        "tv2": "0.12",
        "tv3": "0.2",
        "tstr": "0.7",
        "fit_cpu_seconds": "80",
    }
    elsewhere = {**peer, "epsilon": "10.0", "tv2": "0.06"}
    text = rendered(tmp_path, ours(0, 0.03, 0.05, 0.85), peer, elsewhere)
    assert "| marginal | smartnoise-aim | 3 | 0.25 | 0.25 | 0.25 | 0.10 | 1 |" in text
    assert "| marginal | smartnoise-aim | 10 |" not in text


def test_a_peer_without_a_gap_is_left_out_of_its_ratio(tmp_path):
    peer = {"method": "smartnoise-aim", "seed": "0", "tv2": "0.12", "tv3": "0.2", "tstr": "0.95"}
    text = rendered(tmp_path, ours(0, 0.03, 0.05, 0.85), peer)
    assert "| marginal | smartnoise-aim | 3 | 0.25 | 0.25 | - | 1.00 | 1 |" in text


def test_an_epsilon_without_privacy_reads_none(tmp_path):
    text = rendered(
        tmp_path, {"method": "ctgan", "seed": "0", "epsilon": "inf", "tv2": "0.1", "tv3": "0.2", "tstr": "0.8"}
    )
    assert "| none | ctgan | 0.100 |" in text


def test_without_results_nothing_is_written(tmp_path):
    render(tmp_path / "none.csv", tmp_path / "none.md")
    assert not (tmp_path / "none.md").exists()
