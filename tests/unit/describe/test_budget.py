"""Tokens a minute."""

from __future__ import annotations

from streamer.describe.budget import Budget


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_minutes_tokens_can_be_used_at_once_and_come_back_evenly() -> None:
    clock = Clock()
    budget = Budget(600, clock)
    assert budget.take(600)
    assert not budget.take(1)
    clock.now_s += 1.0
    assert not budget.take(11)
    assert budget.take(10)
    clock.now_s += 1000.0
    assert not budget.take(601)
    assert budget.take(600)


def test_what_a_question_really_cost_replaces_what_was_reserved() -> None:
    clock = Clock()
    budget = Budget(600, clock)
    assert budget.take(500)
    budget.settle(500, 100)
    assert budget.take(500)
    budget.settle(500, 700)  # 200 beyond what was left: the next minute pays
    clock.now_s += 30.0
    assert not budget.take(101)
    assert budget.take(100)
