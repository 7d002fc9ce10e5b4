"""One small survey, its base networks and one adaptation of it, shared by all tests of the room."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from small_survey import QUICK, Labelled, labelled

from transientnet import AdaptResult, InputContract, ModelRecord, adapt

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from transientnet.transfer.export import export_onnx, rewrite_onnx  # noqa: E402
from transientnet.transfer.network import NetworkConfig, StampNetwork  # noqa: E402

NETWORK = NetworkConfig((1, 1, 1, 1), (4, 4, 6, 8), (0, 0, 1), 16)
CLASSES = ("hosted", "variable", "bogus", "real")


def base_record(count: int) -> ModelRecord:
    return ModelRecord(f"base{count}", "1.0.0", CLASSES[-count:], InputContract(), network=NETWORK.to_dict())


def random_network(count: int) -> StampNetwork:
    torch.manual_seed(count)
    network = StampNetwork({"own": count}, NETWORK).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Small networks to start from, of two and of four classes."""
    folder = tmp_path_factory.mktemp("base")
    paths = {count: folder / f"base{count}.onnx" for count in (2, 4)}
    export_onnx(random_network(2), "own", base_record(2), paths[2])
    rewrite_onnx(paths[2], random_network(4), "own", base_record(4), paths[4])
    return {count: str(path) for count, path in paths.items()}


@pytest.fixture(scope="session")
def survey() -> Labelled:
    return labelled()


@pytest.fixture(scope="session")
def adapted(survey: Labelled, bases: dict[int, str], tmp_path_factory: pytest.TempPathFactory) -> AdaptResult:
    """The survey's labels, adapted with all evidence."""
    folder = tmp_path_factory.mktemp("adapted") / "My Survey"
    return adapt(
        survey.labels,
        cutouts=survey.cutouts,
        groups=survey.groups,
        base=bases[2],
        output=str(folder),
        config=replace(QUICK, name=None, label_noise=True, compare_scratch=2),
    )


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal, also where the tests run as a job that ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)
