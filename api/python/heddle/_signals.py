"""Ctrl-C, where it must wait."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def uninterrupted():
    """Holds Ctrl-C back until the block is done: state and step count must change together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived = []
    before = signal.signal(signal.SIGINT, lambda *_: arrived.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            signal.raise_signal(signal.SIGINT)
