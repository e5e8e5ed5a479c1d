from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from market import exact, jit


def write(folder: Path, name: str, code: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(code))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def modules() -> Iterator[None]:
    yield
    for name in ("jit_callee", "jit_caller"):
        sys.modules.pop(name, None)


def use(folder: Path, factor: int) -> int:
    write(folder, "jit_callee", f"from market.jit import compiled\nFACTOR = {factor}\n@compiled\ndef times(x):\n    return x * FACTOR\n")
    caller = write(
        folder,
        "jit_caller",
        "from market.jit import compiled\nfrom jit_callee import times\n@compiled\ndef call(x):\n    return times(x) + 1\n",
    )
    result: int = caller.call(10)
    return result


def test_change_of_a_callee_in_another_file_recompiles_its_callers(tmp_path: Path, modules: None) -> None:
    assert use(tmp_path, 2) == 21
    assert use(tmp_path, 3000) == 30_001


def test_cached_function_is_not_compiled_again(tmp_path: Path, modules: None) -> None:
    use(tmp_path, 2)
    use(tmp_path, 2)
    assert sum(sys.modules["jit_caller"].call.stats.cache_hits.values()) == 1


def test_function_is_compiled_without_a_cache_where_none_can_be_written() -> None:
    scope: dict[str, object] = {"jit": jit}
    exec("@jit.compiled\ndef twice(x):\n    return 2 * x\n", scope)
    assert scope["twice"](21) == 42  # type: ignore[operator]


def test_compiled_functions_take_read_only_arrays() -> None:
    values = np.arange(4, dtype=np.int64)
    values.flags.writeable = False
    assert exact.to_ints(exact.from_int64(values, 18)) == [0, 1, 2, 3]
