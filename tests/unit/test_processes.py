"""The server from which the race and kill tests fork has everything imported that they would wait for."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from tests.processes import CONTEXT, PRELOADED


def tell(pipe: Connection) -> None:
    pipe.send([name for name in PRELOADED if name not in sys.modules])


def test_a_forked_process_begins_with_everything_imported() -> None:
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=tell, args=(theirs,), daemon=True)
    process.start()
    try:
        assert mine.poll(120), "the process did not start"
        assert mine.recv() == []
    finally:
        process.join(20)
        process.kill()
