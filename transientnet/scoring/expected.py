"""How many candidates a run will have, as far as its inputs say so beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from ..readers.arrays import promised
from ..readers.open import Input, paths_of

__all__ = ["Expected"]


class Expected:
    """Candidates to come: arrays have their number in the header, other inputs are like those before them.

    Parameters
    ----------
    inputs : sequence of Input
        In the order in which they are read.
    skips : sequence of int
        Candidates of the first inputs that are not read again.
    """

    def __init__(self, inputs: Sequence[Input], skips: Sequence[int] = ()) -> None:
        self._promised = [promised(paths_of(item)[0]) for item in inputs]
        for number, skip in enumerate(skips):
            if (count := self._promised[number]) is not None:
                self._promised[number] = max(0, count - skip)

    def total(self, ended: int, rows: int) -> int | None:
        """All candidates of the run, once `rows` of them are scored and `ended` inputs are through.

        None as long as nothing is known of some.
        """
        unknown = sum(count is None for count in self._promised)
        known = sum(count or 0 for count in self._promised)
        if not self._promised or not unknown:
            return known or None
        through = self._promised[:ended]
        others = sum(count is None for count in through)
        if not others:
            # One each is a guess, and good enough where arrays have most of the candidates.
            return max(rows, known + unknown) if known else None
        of_others = rows - sum(count or 0 for count in through)
        return max(rows, known + round(max(of_others, others) * unknown / others))
