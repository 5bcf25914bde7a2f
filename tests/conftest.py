"""What every test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from s3_server import s3_server

# by default an example that takes 200 ms fails its test, which says more about the machine than about the code
settings.register_profile("bonas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bonas")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest -m browser --screenshots docs/screenshots` renews the pictures of the documentation."""
    parser.addoption("--screenshots", metavar="DIR", help="where browser tests leave screenshots; default: temporary")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark tables; tests that need it are skipped where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the benchmark tables, such as nasbench201.parquet, are not here: folder {SHARED_DATA} is missing")
    return SHARED_DATA


@pytest.fixture(scope="session")
def nasbench201_table(shared_data: Path) -> Path:
    """The real table of NAS-Bench-201."""
    return _present(shared_data / "nasbench201.parquet", "the table of NAS-Bench-201 is")


@pytest.fixture(scope="session")
def nasbench101_table(shared_data: Path) -> Path:
    """Real cells of NAS-Bench-101: 20,001 of them, each with the accuracy of one run."""
    return _present(shared_data / "nasbench101_cells_20k.parquet", "the cells of NAS-Bench-101 are")


def _present(path: Path, what: str) -> Path:
    if not path.is_file():
        pytest.skip(f"{what} not here: file {path} is missing")
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Small networks are faster on one thread, and sums are then added in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URI of a bucket of a real S3-protocol server, with the options that lead to it."""
    with s3_server() as address:
        yield f"s3://bucket/{{}}?endpoint_override={address}&scheme=http"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3")).format(tmp_path.name)
