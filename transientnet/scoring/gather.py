"""What many requests send, scored together: one collector, batches on as many threads as there are cores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ..files.paths import stem
from ..models.classifier import BATCH_SIZE, Classifier
from ..readers.open import Reading
from ..readers.sniff import Loaded, sniff
from ..results.predictions import Predictions
from ..triplet import Triplet

__all__ = ["Gatherer", "Job", "NoRoomError", "score_jobs"]

#: Seconds to wait for further requests before what is there is scored.
_PATIENCE = 0.004
#: Bytes of input beyond which a batch waits for no further request.
_FULL = 4 * 2**20


class NoRoomError(Exception):
    """No room for the job, or the server ends before it is scored."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file that a request sent, and how to read it.

    Attributes
    ----------
    data : bytes
    name : str
        What rows name as their source; nothing is opened by it.
    reading : Reading
    """

    data: bytes
    name: str
    reading: Reading


def score_jobs(classifier: Classifier, jobs: Sequence[Job]) -> list[Predictions]:
    """Score files together; those that cannot be read, or break what reads them, are rows of their own.

    Parameters
    ----------
    classifier : Classifier
    jobs : sequence of Job

    Returns
    -------
    list of Predictions
        As long as `jobs`.
    """
    counts: list[int] = []

    def triplets() -> Iterator[Triplet]:
        for job in jobs:
            counts.append(0)
            for triplet in _read(job):
                counts[-1] += 1
                yield triplet

    try:
        rows = classifier.joined(list(classifier.stream(triplets(), batch_size=BATCH_SIZE)))
    except Exception as error:  # whatever it is, it must not take the other requests along
        if len(jobs) > 1:
            return [score_jobs(classifier, [job])[0] for job in jobs]
        return [classifier.predict([_lost(jobs[0], error, "scoring failed: ")])]
    found, start = [], 0
    for count in counts:
        found.append(rows[start : start + count])
        start += count
    return found


def _read(job: Job) -> Iterator[Triplet]:
    file = Loaded.of(job.name, job.data)
    try:
        if sniff(file) == "table":
            # It would name files of this machine.
            raise ValueError("a table of file names; send the files")
        yield from job.reading.read(file)
    except Exception as error:  # readers raise their own for what they expect; this is the rest
        yield _lost(job, error)


def _lost(job: Job, error: Exception, what: str = "") -> Triplet:
    reason = (str(error) or type(error).__name__).removeprefix(f"{job.name}: ")
    return Triplet.unreadable(stem(job.name), job.name, what + reason)


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job
    answer: asyncio.Future[Predictions]


class Gatherer:
    """Collects jobs while all threads are busy, or for a few milliseconds, and scores them together.

    Parameters
    ----------
    classifier : Classifier
        With one thread: batches run beside each other.
    workers : int
        Batches under way at a time.
    note : callable
        Called with the number of jobs of each batch.
    """

    def __init__(self, classifier: Classifier, workers: int, note: Callable[[int], None]) -> None:
        self._score = partial(score_jobs, classifier)
        self._note = note
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._free = asyncio.Semaphore(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
        self._collector: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether jobs are taken."""
        return self._collector is not None and not self._collector.done()

    def start(self) -> None:
        """Take jobs; call it in the loop that serves."""
        self._collector = asyncio.create_task(self._collect())

    def stop(self) -> None:
        """Take no more jobs; those that wait are given up."""
        if self._collector is not None:
            self._collector.cancel()
        while not self._queue.empty():
            self._queue.get_nowait().answer.set_exception(NoRoomError())
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def score(self, job: Job) -> Predictions:
        """The rows of one job.

        Raises
        ------
        NoRoomError
        """
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def _collect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            batch = [await self._queue.get()]
            size, end = len(batch[0].job.data), loop.time() + _PATIENCE
            while len(batch) < BATCH_SIZE and size < _FULL:
                try:
                    # What is there is taken without a wait; a wait costs more than a small batch.
                    more = (
                        self._queue.get_nowait()
                        if not self._queue.empty()
                        else await asyncio.wait_for(self._queue.get(), max(0.0, end - loop.time()))
                    )
                except TimeoutError:
                    break
                batch.append(more)
                size += len(more.job.data)
            self._note(len(batch))
            done = loop.run_in_executor(self._pool, self._score, [waiting.job for waiting in batch])
            done.add_done_callback(partial(self._deliver, batch))

    def _deliver(self, batch: list[_Waiting], done: asyncio.Future[list[Predictions]]) -> None:
        self._free.release()
        for number, waiting in enumerate(batch):
            if waiting.answer.done():
                # The client has gone.
                continue
            if done.cancelled() or done.exception() is not None:
                waiting.answer.set_exception(NoRoomError())
            else:
                waiting.answer.set_result(done.result()[number])
