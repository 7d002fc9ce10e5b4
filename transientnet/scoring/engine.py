"""Work on many things at once, results in order: the one loop behind threads and worker processes."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Any, TypeVar

from ..settings import memory_limit

__all__ = ["hold_memory", "in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Results of one item that may wait for their turn; what is beyond waits in the worker.
_QUEUE = 16
#: Items under way or waiting for their turn, per worker.
_AHEAD = 3
#: Part of the bound of memory that items under way may take; working on them takes the rest.
_SHARE = 8
#: Bytes that may lie unused, and the options of glibc's mallopt that say so.
_HELD = 32 * 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Seconds after which a thread that waits looks whether the run has ended.
_PATIENCE = 0.2


def hold_memory() -> None:
    """Let the C library keep what a batch has freed for the next one.

    Given back to the system and asked for again, every page of a batch is a fault; together they cost
    half as much as preparing the stamps. For processes whose only work is to score.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(option, _HELD)


def in_order(
    work: Callable[[Item], Iterable[Result]],
    items: Iterable[Item],
    workers: int,
    weigh: Callable[[Item], int] = lambda item: 0,
) -> Iterator[Result]:
    """All results of ``work(item)`` for each item, in the order of the items.

    Memory does not depend on the number of items or of their results: items are taken when a worker
    will soon be free, and a worker whose results are not yet wanted waits. An error of `work` or
    of `items` is raised where its results would have come.

    Parameters
    ----------
    work : callable
        Called in one of `workers` threads; 1 means in this thread, without any other.
    items : iterable
        Read in this thread.
    workers : int
    weigh : callable, optional
        Bytes that an item takes: no further item is taken while those under way take more than their share of
        the bound of memory.
    """
    if workers <= 1:
        for item in items:
            yield from work(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    ended = threading.Event()
    waiting: deque[tuple[Queue[Any], int]] = deque()
    most, weight = memory_limit() // _SHARE, 0
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
    try:
        more = True
        while more or waiting:
            while more and len(waiting) < _AHEAD * workers and weight <= most:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                results: Queue[Any] = Queue(_QUEUE)
                waiting.append((results, weigh(item)))
                weight += waiting[-1][1]
                pool.submit(_fill, work, item, results, ended)
                del item
            if waiting:
                results, done = waiting.popleft()
                yield from _drain(results)
                weight -= done
    finally:
        ended.set()
        pool.shutdown(wait=True, cancel_futures=True)


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_DONE = object()


def _fill(
    work: Callable[[Item], Iterable[Result]], item: Item, results: Queue[Any], ended: threading.Event
) -> None:
    try:
        for result in work(item):
            if not _put(results, result, ended):
                return
        _put(results, _DONE, ended)
    except BaseException as error:
        _put(results, _Failed(error), ended)


def _put(results: Queue[Any], result: Any, ended: threading.Event) -> bool:
    while not ended.is_set():
        try:
            results.put(result, timeout=_PATIENCE)
            return True
        except Full:
            continue
    return False


def _drain(results: Queue[Any]) -> Iterator[Any]:
    while True:
        try:
            # A wait without end would not see Ctrl-C on every system.
            result = results.get(timeout=_PATIENCE)
        except Empty:
            continue
        if result is _DONE:
            return
        if isinstance(result, _Failed):
            raise result.error
        yield result
