"""The climate of every test: strict numerics, warnings as errors, eight virtual CPU devices."""

import os

import jaxlib.version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# each core has a worker: LAPACK's threads would only wait for each other, and do it by turning
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
FLAGS = {
    "xla_force_host_platform_device_count": 8,
    # thousands of small programs that run a few times: compiled in a third of the time
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jaxlib.version.__version_info__ < (0, 11):  # later ones have no other emitters
    FLAGS["xla_cpu_use_fusion_emitters"] = "false"
given = os.environ.get("XLA_FLAGS", "")
ours = [f"--{name}={value}" for name, value in FLAGS.items() if name not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()
os.environ.setdefault("MPLBACKEND", "Agg")

import contextlib
import gc
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
cache = Path(os.environ.get("FNOPT_TEST_CACHE", Path(tempfile.gettempdir()) / "fnopt-test-cache"))
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
finished = 0


def pytest_addoption(parser):
    """`--sweep all` runs the tests marked `sweep` too; `--sweep 3/8` one eighth of them."""
    words = "run the tests marked sweep too: all, or part I (from 0) of N"
    parser.addoption("--sweep", metavar="all|I/N", help=words)


def pytest_collection_modifyitems(config, items):
    """Leaves out the sweep, or all of it but one part."""
    chosen = config.getoption("--sweep")
    part, parts = map(int, chosen.replace("all", "0/1").split("/")) if chosen else (-1, 1)
    sweep = [item for item in items if item.get_closest_marker("sweep")]
    left_out = {id(item) for i, item in enumerate(sweep) if i % parts != part}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


def pytest_collection_finish(session):
    """Spares the collector what lives as long as the tests: modules, and thousands of tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_teardown(item, nextitem):
    """Forgets compiled programs before they use up the memory maps that a process may have, or
    JAX's cache of 8192 calls: once it is full, a new function says that it has compiled none."""
    global finished
    finished += 1
    maps = Path("/proc/self/maps")
    full = finished % 20 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 25_000
    if full or finished % 500 == 0:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_numerics():
    """JAX's default promotion, for the code of other libraries."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def workdir(tmp_path):
    """An empty folder to stand in, for commands that write where they are."""
    with contextlib.chdir(tmp_path):
        yield tmp_path
