"""The checks of evaluation/bench/gpu.py on a GPU, and their twins on the processor."""

from __future__ import annotations

import gpu
import pytest
import torch

CPU = torch.device("cpu")


def test_the_processor_agrees_with_itself_and_not_with_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(gpu.agreement(CPU).values()) < 1e-6
    made = []

    def other_weights(*args: object, **options: object) -> object:
        generator = build(*args, **options)
        made.append(generator)
        if len(made) > len(gpu.PHASES):  # the second place that is compared
            with torch.no_grad():
                generator.mixture.logits.mul_(0.5)
        return generator

    build = gpu._generator
    monkeypatch.setattr(gpu, "_generator", other_weights)
    assert gpu.agreement(CPU)["encoder"] > 1e-3


@pytest.mark.parametrize("name", gpu.PHASES)
def test_steps_are_timed_with_and_without_privacy(name: str) -> None:
    found = gpu.step_times(name, CPU, batch=16, times=2)
    assert found["private_ms"] > 0.0
    assert found["ratio"] == pytest.approx(found["private_ms"] / found["without_privacy_ms"], rel=0.01)
    assert found["rows_per_second"] == pytest.approx(16 / found["private_ms"] * 1e3, rel=0.01)


def test_a_table_that_is_not_there_is_left_out_with_its_reason() -> None:
    assert gpu.whole_fit("marginal", CPU, patients=10, data=None)["left_out"]


@pytest.mark.gpu
def test_the_device_agrees_with_the_processor() -> None:
    found = gpu.agreement(torch.device("cuda"))
    assert found["critic"] < 1e-4
    assert found["encoder"] < 1e-3
    assert found["mixture"] < 1e-2
