"""The published report's tables as they are told in `conf/published.yaml`, with each row composed."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.analysis.published import Row, Scale, Table
from cifar_lab.config import naming, schema

__all__ = ["Row", "Scale", "Table", "tables"]


@cache
def tables() -> tuple[Table, ...]:
    """The report's tables, each row composed; a tenth of a second a row."""
    told = yaml.safe_load((schema.conf_folder() / "published.yaml").read_text())
    return tuple(
        Table(table["name"], table["title"], tuple(map(_row, table["rows"])), table.get("note", ""))
        for table in told["tables"]
    )


def _row(told: Mapping[str, Any]) -> Row:
    row = Row(told["experiment"], told["label"], tuple(told.get("overrides", ())), told.get("train_loss", {}))
    config = composed([f"experiment={row.experiment}", *row.overrides, "protocol=report", "seed=0"])
    return Row(row.experiment, row.label, row.overrides, row.train_loss, config)


def composed(lines: Sequence[str]) -> dict[str, Any]:
    """What a command line composes, plain values.

    Raises:
        ValueError: It cannot be composed.
    """
    try:
        with initialize_config_dir(str(schema.conf_folder()), version_base="1.3"):
            return naming.plain(compose("train", list(lines), return_hydra_config=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from None
