"""What fixtures of a whole module do as single tests do: figures are not painted, and no disk is waited for."""

import os

import pytest
from matplotlib.figure import Figure

from tests.conftest import _save_blank


def quick(patch: pytest.MonkeyPatch) -> None:
    """Leave figures blank and nothing to wait for, until the patch is undone."""
    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(Figure, "savefig", _save_blank)
