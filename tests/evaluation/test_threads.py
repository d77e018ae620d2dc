"""How many threads an evaluation uses."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from synthehr.evaluation.suite import load_suite, run_suite
from synthehr.evaluation.threads import in_parallel


def widest() -> int:
    """The most threads of any library of products."""
    scipy.linalg.norm(np.ones((2, 2)))
    return max(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")


def test_products_keep_to_one_thread_while_a_suite_runs_and_no_longer(nafld) -> None:
    seen = []
    with threadpool_limits(limits=2, user_api="blas"):
        run_suite(
            train=nafld.cohort(nafld.train.root[:200]),
            holdout=nafld.cohort(nafld.holdout.root[:200]),
            synthetic=nafld.cohort(nafld.others[:200]),
            suite=load_suite("quick").only(["fidelity"]),
            on_progress=lambda *_: seen.append(widest()),
        )
        assert set(seen) == {1}
        assert widest() == 2


def test_tasks_side_by_side_return_in_their_order() -> None:
    assert in_parallel([lambda at=at: at * at for at in range(5)]) == [0, 1, 4, 9, 16]
