"""The report's claims as decided by the runs in a folder, and runs of several seeds to decide them."""

from pathlib import Path
from typing import Any

from cifar_lab.report.claims.claims import Claim, claims
from cifar_lab.report.published import Row, tables
from cifar_lab.report.reproduction import reproduce
from cifar_lab.runs import Run, find_runs
from cifar_lab.table.records import gather
from tests.published_runs import leave_run

_COMPACT = {"best_cnn": 5_809_418}
LIPSCHITZ = ("loss_at_the_point", "loss_over_a_step", "gradient_at_the_point", "gradient_over_a_step")
LANDSCAPE = ("smoother", *LIPSCHITZ, "predictive", "shift")
# The claims in the order of the page. Tests do not look for their text.
CLAIMS = (
    *("alike", "elu_weaker", "units_revived"),
    *("ce_calmer", "focal_fast", "smoothing_median", "mse_stable", "many_epochs"),
    *("adam_over_sgd", "sign_sgd_improves"),
    *("schedules_tied", "step_rougher"),
    "compact",
    *("half_by_epoch_10", "half_by_epoch_25", "larger_rates"),
    *LANDSCAPE,
)


def row(name: str) -> Row:
    """Return the published row with a name."""
    return {row.name: row for table in tables() for row in table.rows}[name]


def judge(folder: Path) -> dict[str, Claim]:
    """Return every claim by its name in `CLAIMS`."""
    return dict(zip(CLAIMS, claims(reproduce(tables(), gather(find_runs(folder))), _COMPACT), strict=True))


def leave_seeds(folder: Path, row: Row, mean: float, number: int = 5, spread: float = 0.0005, **told: Any) -> list[Run]:
    """Write finished runs of a row; five accuracies, `spread` apart, average `mean`."""
    name = f"{row.name}{told.get('protocol', '')}"
    return [
        leave_run(folder / f"{name}{seed}", row, mean + spread * (seed - 2), seed=seed, **told)
        for seed in range(number)
    ]


def leave_loss(folder: Path, loss: str, mean: float, *, epochs: int = 50, **told: Any) -> list[Run]:
    """Write seeds of `study=loss`; each loss is its own composition, which differs in its dropout here."""
    return leave_seeds(
        folder / f"{loss}{epochs}",
        row("loss_ce"),
        mean,
        protocol="holdout",
        epochs=epochs,
        options={"study": "loss", "loss": loss, "experiment": None},
        overrides=[f"loss={loss}", f"epochs={epochs}"],
        changes={"model.dropout": 0.01 * len(loss)},
        **told,
    )
