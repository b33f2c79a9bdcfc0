"""How far a sweep is."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """The place of a job in its sweep.

    Attributes:
        number: Of the job, from 1.
        total: Jobs of the sweep.
        later: Jobs after it that have not finished yet.
        each: Seconds that a job trained before has taken on average; None if none was.
        beside: How many jobs run at a time.
    """

    number: int
    total: int
    later: int
    each: float | None = None
    beside: int = 1

    @classmethod
    def of(cls, number: int, unfinished: Sequence[int], each: float | None = None, beside: int = 1) -> "Turn":
        """The turn of a job, from 0, of a sweep whose unfinished jobs are 1 in `unfinished`, and the others 0."""
        return cls(number + 1, len(unfinished), sum(unfinished[number + 1 :]), each, beside)

    def __str__(self) -> str:
        return f"job {self.number} of {self.total}"

    def seconds_left(self, own: float | None = None, own_left: float | None = None) -> float | None:
        """How long this job and those after it will take, if they take as long as those before it on average.

        Args:
            own: What this job will take in all; it stands for the others where it is the first.
            own_left: What is left of it; None for all.

        Returns:
            Seconds; None if nothing is known yet.
        """
        each = own if self.each is None else self.each
        if each is None:
            return None
        return (each if own_left is None else own_left) + each * -(-self.later // self.beside)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
