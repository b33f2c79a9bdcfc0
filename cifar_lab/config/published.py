"""The published report's tables as they are told in `conf/published.yaml`, with each row composed."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.analysis.published import Hypothesis, Row, Scale, Table
from cifar_lab.config import naming, schema

__all__ = ["Hypothesis", "Row", "Scale", "Table", "tables"]


@cache
def tables() -> tuple[Table, ...]:
    """The report's tables, each row composed; a tenth of a second a row."""
    told = yaml.safe_load((schema.conf_folder() / "published.yaml").read_text())
    return tuple(
        Table(table["name"], table["title"], tuple(map(_row, table["rows"])), table.get("note", ""))
        for table in told["tables"]
    )


def _row(told: Mapping[str, Any]) -> Row:
    overrides = tuple(told.get("overrides", ()))
    config = _of_row(told["experiment"], overrides)
    return Row(
        told["experiment"],
        told["label"],
        overrides,
        told.get("train_loss", {}),
        config,
        config["published"],
        tuple(_hypothesis(told, one, config["published"]) for one in told.get("hypotheses", ())),
    )


def _hypothesis(row: Mapping[str, Any], told: Mapping[str, Any], published: float | None) -> Hypothesis:
    # Its run reproduces nothing that is printed, so the run itself carries no published number.
    overrides = (*row.get("overrides", ()), *told["overrides"], "published=null")
    config = _of_row(row["experiment"], overrides)
    tested = Row(row["experiment"], told["label"], overrides, config=config, accuracy=published)
    return Hypothesis(told["name"], told["words"], tested)


def _of_row(experiment: str, overrides: Sequence[str]) -> dict[str, Any]:
    return composed([f"experiment={experiment}", *overrides, "protocol=report", "seed=0"])


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
