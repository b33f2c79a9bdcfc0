"""The pages on kept results agree with the report on them."""

import re
from collections import Counter
from pathlib import Path

import pytest

from cifar_lab.report.claims.claims import Claim, claims
from cifar_lab.report.claims.evidence import VERDICTS
from cifar_lab.report.command import read
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Archive
from tests.claim_runs import CLAIMS
from tests.conftest import holds

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = r"\d[\d,]*\.?\d*"


@pytest.fixture(scope="module")
def kept_results() -> Reproduction:
    return read([], Archive(DOCS / "results"))


@pytest.fixture(scope="module")
def claims_by_words(kept_results: Reproduction) -> dict[str, Claim]:
    return {claim.words: claim for claim in claims(kept_results, {"best_cnn": 5_809_418})}


def _page(name: str) -> str:
    return " ".join((DOCS / name).read_text(encoding="utf-8").split())


def _lines(page: str) -> list[list[str]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", text, re.MULTILINE)]


def test_rows_have_the_numbers_and_verdicts_of_the_kept_runs(kept_results: Reproduction) -> None:
    lines = {name: line for line in _lines("report.md") if len(line) == 6 for name in line[0].split(", ")}
    entries = {entry.row.name: entry for entry in kept_results.entries if entry.row.accuracy is not None}
    assert entries.keys() <= lines.keys()
    for name, entry in entries.items():
        _, published, best, last, runs, verdict = lines[name]
        assert float(published) == pytest.approx(100 * (entry.row.accuracy or 0)), name
        assert verdict.startswith(entry.verdict), name
        for cell, quantity in ((best, "test/acc"), (last, "test/acc_final")):
            values = entry.values(quantity, "report")
            shown = re.match(NUMBER, cell)
            assert bool(len(values)) == bool(shown), name
            assert shown is None or float(shown[0]) == pytest.approx(100 * values.mean(), abs=0.0051), name
            assert shown is None or runs.startswith(f"{len(values)},"), name


def test_the_page_has_the_reports_counts_of_rows_and_claims(
    kept_results: Reproduction, claims_by_words: dict[str, Claim]
) -> None:
    page = _page("report.md")
    verdicts = Counter(entry.verdict for entry in kept_results.entries if entry.noise is not None)
    holds(
        page,
        f"{verdicts.total()} rows are compared",
        f"{verdicts['within noise']} agree",
        f"{kept_results.by_chance:.1f}",
    )
    counts = Counter(claim.verdict for claim in claims_by_words.values())
    holds(page, f"{len(claims_by_words)} claims", *(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[1:]))
    assert re.search(rf"\b{counts[VERDICTS[0]]} (are )?{VERDICTS[0]}", page)


def test_each_claim_has_the_verdict_and_numbers_of_the_report(claims_by_words: dict[str, Claim]) -> None:
    lines = [line for page in ("report.md", "batch_norm.md") for line in _lines(page) if line[0] in claims_by_words]
    assert sorted(line[0] for line in lines) == sorted(claims_by_words)
    assert len(claims_by_words) == len(CLAIMS)
    for words, numbers, verdict in lines:
        claim = claims_by_words[words]
        assert verdict.replace("*", "").startswith(claim.verdict), words
        holds(verdict, claim.note.removesuffix(" by Holm"))
        assert set(re.findall(NUMBER, numbers)) <= set(re.findall(NUMBER, claim.numbers)), words
