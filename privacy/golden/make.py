"""Write accounts.json anew: events, and their epsilon by accountants that are not synthehr's. Run by hand.

python privacy/golden/make.py
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import independent

from synthehr.models.ctgan import CriticSettings
from synthehr.models.planning import plan_fit
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import load_policy
from synthehr.schema.files import load_schema

HERE = Path(__file__).parent
LIBRARIES = ("dp-accounting", "opacus", "scipy", "numpy")
BEST = 2**22


def gaussian(sigma: float, count: int = 1) -> dict[str, Any]:
    """Gaussian noise."""
    return {"type": "Gaussian", "stage": "golden", "noise_multiplier": sigma, "count": count}


def sampled(rate: float, sigma: float, count: int) -> dict[str, Any]:
    """Gaussian noise on a Poisson sample."""
    return {
        "type": "PoissonSampledGaussian",
        "stage": "golden",
        "sampling_probability": rate,
        "noise_multiplier": sigma,
        "count": count,
    }


def promise(epsilon: float, delta: float) -> dict[str, Any]:
    """Any (epsilon, delta) mechanism."""
    return {"type": "EpsilonDelta", "stage": "golden", "epsilon": epsilon, "delta": delta, "count": 1}


def whole_fit(epsilon: float, delta: float, patients: int, *, critic_rounds: int | None) -> list[dict[str, Any]]:
    """The count and the plan of a fit, as the code planned it on the day the file was written."""
    columns = {
        "id": {"kind": "id"},
        "sex": {"kind": "category", "values": ["f", "m"]},
        "code": {"kind": "category", "discover": True},
        "age": {"kind": "integer", "bounds": [0, 120]},
        "weight": {"kind": "number", "bounds": [20, 300], "nullable": True},
    }
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"key": "id", "columns": columns}}})
    policy = load_policy("standard")
    share = policy.shares.count * epsilon
    plan = plan_fit(
        schema.root,
        budget=Budget(epsilon=epsilon - share, delta=delta),
        policy=policy,
        patients_bought=patients,
        gradients=None if critic_rounds is None else CriticSettings(steps=critic_rounds),
    )
    return [{**promise(share, 0.0), "stage": "count"}, *(event.model_dump() for event in plan.events)]


CASES: dict[str, tuple[list[dict[str, Any]], float]] = {
    "one Gaussian": ([gaussian(1.0)], 1e-5),
    "one strong Gaussian": ([gaussian(20.0)], 1e-9),
    "one weak Gaussian": ([gaussian(0.5)], 1e-6),
    "several Gaussians": ([gaussian(2.0), gaussian(4.0, 4), gaussian(9.0, 7)], 1e-6),
    "a Gaussian and a failure": ([gaussian(2.0), promise(0.0, 4e-6)], 1e-5),
    "a Gaussian and a pure promise": ([gaussian(3.0), promise(0.05, 0.0)], 1e-6),
    "a Gaussian, two pure promises and two failures": (
        [gaussian(5.0, 3), promise(0.2, 0.0), promise(0.1, 1e-7), promise(0.0, 3e-7)],
        1e-6,
    ),
    "one sampled step": ([sampled(0.01, 0.5, 1)], 1e-6),
    "every patient in every step": ([sampled(1.0, 30.0, 100)], 1e-6),
    "rate 1 %, 1,000 steps": ([sampled(0.01, 1.0, 1000)], 1e-5),
    "rate 5 %, 500 steps": ([sampled(0.05, 2.0, 500)], 1e-6),
    "rate 20 %, 300 steps": ([sampled(0.2, 4.0, 300)], 1e-6),
    "rate 50 %, 100 steps": ([sampled(0.5, 10.0, 100)], 1e-7),
    "rate 0.1 %, 10,000 steps": ([sampled(0.001, 0.7, 10_000)], 1e-7),
    "two rates": ([sampled(0.02, 1.5, 400), sampled(0.1, 3.0, 100)], 1e-6),
    "sampled steps and Gaussians": ([sampled(0.02, 1.2, 500), gaussian(3.0), gaussian(6.0, 2)], 1e-6),
    "all kinds": ([sampled(0.02, 1.2, 500), gaussian(4.0), promise(0.03, 0.0), promise(0.0, 1e-7)], 1e-6),
    "whole fit, histograms, epsilon 1": (whole_fit(1.0, 1e-6, 5_000, critic_rounds=None), 1e-6),
    "whole fit, histograms, epsilon 10": (whole_fit(10.0, 1e-7, 200, critic_rounds=None), 1e-7),
    "whole fit, critic, epsilon 0.1": (whole_fit(0.1, 1e-7, 1_000_000, critic_rounds=200), 1e-7),
    "whole fit, critic, epsilon 1": (whole_fit(1.0, 1e-6, 50_000, critic_rounds=200), 1e-6),
    "whole fit, critic, epsilon 3": (whole_fit(3.0, 1e-9, 2_000, critic_rounds=200), 1e-9),
}


def judged(events: list[dict[str, Any]], delta: float) -> dict[str, float]:
    """Epsilon by each accountant that knows these events."""
    own = independent.own_epsilon(events, delta, cells=BEST)
    found = {
        "closed form": independent.analytic_gaussian(events, delta),
        "own integration": own,
        "dp_accounting PLD": independent.google_pld(events, delta, mesh=min(1e-4, 1e-4 * own)),
        "at most, dp_accounting RDP": independent.google_rdp(events, delta),
        "at most, Opacus RDP": independent.opacus_rdp(events, delta),
    }
    if all(e.get("sampling_probability", 0.0) < 1.0 for e in events):
        found["Opacus PRV"] = independent.opacus_prv(events, delta, error=0.005 * own)
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def main() -> None:
    """Write the file."""
    made = [
        {"case": name, "events": events, "delta": delta, "epsilon": judged(events, delta)}
        for name, (events, delta) in CASES.items()
    ]
    content = {"made_with": {name: version(name) for name in LIBRARIES}, "cases": made}
    (HERE / "accounts.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
