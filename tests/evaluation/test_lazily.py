"""Values that are computed once, by threads that do not wait for each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from calo_train.evaluation.lazily import lazily

TIMEOUT = 20.0  # seconds until threads that never meet are given up


class Meeting:
    """An object whose value needs another thread to compute one of its own at the same time."""

    barrier = threading.Barrier(2, timeout=TIMEOUT)

    def __init__(self) -> None:
        self.num_computed = 0

    @lazily
    def value(self) -> int:
        self.num_computed += 1
        return self.barrier.wait()


def test_threads_compute_values_of_two_objects_at_once():
    first, second = Meeting(), Meeting()
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda meeting: meeting.value, (first, second)))
    assert sorted(found) == [0, 1]


def test_a_value_is_computed_once():
    meetings = Meeting(), Meeting()
    with ThreadPoolExecutor(2) as threads:
        once = list(threads.map(lambda meeting: meeting.value, meetings))
    assert [meeting.value for meeting in meetings] == once
    assert [meeting.num_computed for meeting in meetings] == [1, 1]
