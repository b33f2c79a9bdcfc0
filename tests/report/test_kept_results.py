"""The pages on kept results say what the report says of them."""

import re
from collections import Counter
from pathlib import Path

import pytest

from cifar_lab.report.claims.claims import Claim, claims
from cifar_lab.report.claims.evidence import VERDICTS
from cifar_lab.report.command import read
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Archive
from tests.conftest import holds
from tests.judged_runs import CLAIMS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def kept() -> Reproduction:
    return read([], Archive(DOCS / "results"))


@pytest.fixture(scope="module")
def decided(kept: Reproduction) -> dict[str, Claim]:
    return dict(zip(CLAIMS, claims(kept, {"best_cnn": 5_809_418}), strict=True))


def _lines(page: str) -> list[list[str]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", text, re.M)]


def test_rows_and_claims_have_the_verdicts_of_the_report(kept: Reproduction, decided: dict[str, Claim]) -> None:
    verdicts = {entry.row.name: entry.verdict for entry in kept.entries}
    told = {name: line[-1] for line in _lines("report_results.md") if len(line) == 5 for name in line[0].split(", ")}
    assert {"activation_elu", "optimizer_sgd", "scheduler_cosine"} <= verdicts.keys() & told.keys()
    for name in verdicts.keys() & told.keys():
        assert told[name].startswith(verdicts[name])
    compared = sum(entry.noise is not None for entry in kept.entries)
    page = " ".join((DOCS / "report_results.md").read_text(encoding="utf-8").split())
    holds(page, f"the {compared} rows", f"{kept.by_chance:.1f} would")
    counts = Counter(claim.verdict for claim in decided.values())
    holds(page, f"Of the {len(decided)} claims", *(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[1:]))
    holds(page, f"{counts[VERDICTS[0]]} are {VERDICTS[0]}")


def test_batch_norms_claims_have_the_verdicts_and_numbers_of_the_report(decided: dict[str, Claim]) -> None:
    parts = {
        "smoother": "smoother, of lower variance",
        "predictive": "gradient predictiveness",
        "loss_at_the_point": "loss is smaller, at the point",
        "loss_over_a_step": "of the loss, over a step",
        "gradient_at_the_point": "(beta-smoothness), at the point",
        "gradient_over_a_step": "of the gradient, over a step",
        "larger_rates": "larger learning rates",
        "half_by_epoch_10": "by epoch 10",
        "half_by_epoch_25": "by epoch 25",
        "shift": "covariate shift",
    }
    lines = [line for line in _lines("batch_norm_results.md") if len(line) == 3]
    for name, words in parts.items():
        (told,) = [line[-1].replace("*", "") for line in lines if words in line[0]]
        assert told.startswith(decided[name].verdict), name
        holds(told, decided[name].note.removesuffix(" by Holm"))
