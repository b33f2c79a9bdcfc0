"""Environment of a process started by torchrun."""

import os


def processes() -> tuple[int, int] | None:
    """Return the processes per machine and the number of machines; None for a single process or without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return (here, everywhere // here) if everywhere > 1 else None


def rank() -> int:
    """Return the index of this process among all of torchrun's, from 0; 0 without torchrun."""
    return 0 if processes() is None else int(os.environ["RANK"])
