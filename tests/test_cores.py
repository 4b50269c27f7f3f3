"""Cores for a batch: one each beside others, whichever is fastest alone."""

import threading

import pytest

from embedsvc.ops.cores import RETRY, Cores


class Machine:
    """A clock; a pass takes what the test says for the cores it may use."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.used: list[int] = []
        self.cores = Cores(2, clock=lambda: self.now)

    def work(self) -> None:
        self.used.append(self.cores.width)
        self.now += self.seconds[self.cores.width]


def test_parts_run_at_once_and_come_back_in_order() -> None:
    cores = Cores(3)
    meet = threading.Barrier(3, timeout=10)

    def part(number: int) -> int:
        meet.wait()  # nobody passes alone
        return number

    assert cores.together([lambda n=n: part(n) for n in range(3)]) == [0, 1, 2]


def test_a_part_that_fails_fails_the_batch() -> None:
    with pytest.raises(ZeroDivisionError):
        Cores(2).together([lambda: 1, lambda: 1 // 0])


def test_a_batch_alone_gets_all_cores_where_that_is_faster() -> None:
    machine = Machine({1: 6.0, 2: 4.0})
    for _ in range(20):
        machine.cores.run(machine.work, 16)
    assert machine.used[6:] == [2] * 14


def test_a_batch_alone_gets_one_core_where_waiting_for_the_other_costs_more() -> None:
    machine = Machine({1: 6.0, 2: 60.0})
    for _ in range(20):
        machine.cores.run(machine.work, 16)
    assert machine.used[6:] == [1] * 14


def test_what_was_slower_gets_another_chance() -> None:
    machine = Machine({1: 6.0, 2: 60.0})
    for _ in range(10):
        machine.cores.run(machine.work, 16)
    machine.seconds[2] = 4.0  # the other program has ended
    for _ in range(4 * RETRY):
        machine.cores.run(machine.work, 16)
    assert machine.used[-10:].count(2) >= 9


def test_sizes_are_judged_apart() -> None:
    machine = Machine({1: 6.0, 2: 4.0})
    for _ in range(6):
        machine.cores.run(machine.work, 16)
    machine.seconds[2] = 60.0
    for _ in range(6):
        machine.cores.run(machine.work, 500)
    machine.used.clear()
    machine.cores.run(machine.work, 500)
    machine.cores.run(machine.work, 16)
    assert machine.used == [1, 2]


def test_batches_beside_each_other_take_one_core_each() -> None:
    machine = Machine({1: 6.0, 2: 4.0})
    machine.cores.run(lambda: machine.cores.run(machine.work, 16), 16)
    assert machine.used == [1]


def test_a_pass_of_unknown_size_takes_one_core() -> None:
    machine = Machine({1: 6.0, 2: 4.0})
    machine.cores.run(machine.work, 0)
    assert machine.used == [1]
