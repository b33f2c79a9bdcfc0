"""The engines of `make cluster-test`: each starts when a test asks for it, and ends with the tests."""

from collections.abc import Iterator

import pytest

from tests.cluster import slurm


@pytest.fixture(scope="session")
def slurm_of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Slurm]:
    """A Slurm of two nodes of two processors; skips where its packages cannot be found."""
    if why := slurm.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents[:2]):  # munged wants others to reach its socket
        path.chmod(0o755)
    with slurm.running(folder) as running:
        yield running
