"""Ctrl-C that ends work in order: the one guard of SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Interrupt", "on_interrupt"]


class Interrupt:
    """Whether Ctrl-C was pressed."""

    asked = False


@contextmanager
def on_interrupt(call: Callable[[], None] | None = None, *, once: bool = False) -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising it, so that what runs can end in order.

    Parameters
    ----------
    call : callable, optional
        Called in the signal handler, each time.
    once : bool
        The second Ctrl-C ends the program as usual.

    Yields
    ------
    Interrupt

    Notes
    -----
    Signals reach the main thread alone, and never a process that ignores them (a job in the background):
    there the guard changes nothing.
    """
    interrupt = Interrupt()
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield interrupt
        return

    def note(*_: object) -> None:
        interrupt.asked = True
        if call is not None:
            call()
        if once:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, usual)
