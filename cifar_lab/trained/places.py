"""Where a trained network may be, known without torch."""

from pathlib import Path

from cifar_lab.runs import is_run


def check_place(path: Path) -> None:
    """Refuse what is neither a run's folder nor a file.

    Raises:
        ValueError: In one line that says what to name.
    """
    if path.is_dir() and not is_run(path):
        raise ValueError(f"{path} is no run; name a run's folder, which holds a status.json, or a file of weights")
    if not (path.is_dir() or path.is_file()):
        raise ValueError(f"{path} does not exist; name a run's folder, or a file of weights")
