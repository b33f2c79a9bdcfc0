"""The environment of a process that torchrun has started."""

import os


def processes() -> tuple[int, int] | None:
    """Processes per machine and number of machines; None for a single process or one that torchrun has not started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return (here, everywhere // here) if everywhere > 1 else None


def rank() -> int:
    """Index of this process among all of torchrun's, from 0; 0 without torchrun."""
    return 0 if processes() is None else int(os.environ["RANK"])
