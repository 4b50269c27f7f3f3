"""Threads for NumPy's products: one each beside others, whichever is fastest alone."""

from embedsvc.ops.cores import RETRY, Cores


class Machine:
    """A clock, and the thread counts set; a pass takes what the test says for a thread count."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.threads = 1
        self.used: list[int] = []
        self.cores = Cores(2, clock=lambda: self.now)
        self.cores._blas = [self]

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads

    def work(self) -> None:
        self.used.append(self.threads)
        self.now += self.seconds[self.threads]


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
