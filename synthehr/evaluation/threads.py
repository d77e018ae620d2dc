"""How many threads an evaluation uses: tasks side by side, each with one.

Threads that wait for each other within one product or one tree spin meanwhile; beside other work on the machine that
doubled the processor time of a suite (2 cores, 20,000 patients x 40 columns: 37 CPU seconds instead of 17).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

__all__ = ["in_parallel", "single_thread", "single_threaded_products"]

T = TypeVar("T")


def in_parallel(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks return, in their order; they run side by side on as many threads as there are cores.

    Learners hold Python's lock for a small part of their time. Each keeps to its own thread.
    """
    if len(tasks) < 2:
        return [task() for task in tasks]
    with (
        _warnings_kept(),
        ThreadPoolExecutor(max_workers=min(len(tasks), os.cpu_count() or 1), initializer=_limit_thread) as pool,
    ):
        return [running.result() for running in [pool.submit(task) for task in tasks]]


@contextmanager
def _warnings_kept() -> Iterator[None]:
    """Keep warnings until all threads have ended, and the filters of warnings as they were.

    The filters are one for the process. scikit-learn sets them aside in each thread for a moment, and a thread that
    looks meanwhile finds none, warns of that (so it does of nothing the caller could mend), and may leave none behind.
    """
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        yield
    for one in kept:
        if "sklearn.utils.parallel.delayed" not in str(one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _limit_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="openmp")  # never undone: it holds for this thread alone


def single_thread() -> AbstractContextManager[Any]:
    """Keep learners to one thread. OpenMP's limit holds for the calling thread alone."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="openmp")
    return limits


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Keep products of matrices to one thread. BLAS has one limit for the whole process, set back at the end."""
    # Loaded here since a library that is loaded later does not know of the limit.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
