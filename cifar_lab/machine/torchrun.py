"""What torchrun tells a process that it has started."""

import os


def processes() -> tuple[int, int] | None:
    """How many processes it has started on this machine, and on how many machines; None where it has not started this.

    One process alone is none of several either.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return (here, everywhere // here) if everywhere > 1 else None


def rank() -> int:
    """Which of all of them this one is, from 0; 0 where it has not started this."""
    return 0 if processes() is None else int(os.environ["RANK"])
