"""Compile the few loops that walk trade by trade.

Rules of compiled functions here: arguments are arrays and 64-bit scalars, no Python objects. Never mix signed and unsigned
operands in one expression: numba follows numpy and makes a float of them. Compilation happens at the first call and is
kept on disk beside the source.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.dispatcher import Dispatcher

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return `function` compiled on first use, without the interpreter lock, cached on disk.

    Integer overflow wraps and division by zero is undefined, as in C.
    """
    return _compile(function, {})


def compiled_scan(function: Function) -> Function:
    """Return `function` compiled like `compiled`, for the many small parts of a hot loop.

    Each is inlined into its callers, and arrays are borrowed without counting references: counting costs five times what the
    rest of a byte scanner does, fifteen times what the rest of the fold does. Such a function, and every one it calls, must not create an array.
    """
    return _compile(function, {"forceinline": True, "_nrt": False})


def _compile(function: Function, more: dict[str, bool]) -> Function:
    options = {"nogil": True, "error_model": "numpy", **more}
    try:
        dispatcher = njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache: compile in every process
        return cast("Function", njit(**options)(function))
    if isinstance(dispatcher, Dispatcher):  # else NUMBA_DISABLE_JIT is set, and this is the function itself
        _tie_to_callees(dispatcher)
    return cast("Function", dispatcher)


def _tie_to_callees(dispatcher: Any) -> None:
    # The cache of a function is dropped when its own file changes, but code and constants that it takes from other files
    # are part of the machine code as well. Their stamps join its own, so that an update of either recompiles.
    function: FunctionType = dispatcher.py_func
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    stamps = [_stamp(value) for value in used if isinstance(value, Dispatcher)]
    constants = [repr(value) for value in used if isinstance(value, int) or hasattr(value, "dtype")]
    file = dispatcher._cache._cache_file  # noqa: SLF001 - numba has no public way; tests/unit/market/test_jit.py watches it
    file._source_stamp = (file._source_stamp, tuple(stamps), tuple(constants), repr(dispatcher.targetoptions))  # noqa: SLF001


def _stamp(dispatcher: Any) -> Any:
    cache = dispatcher._cache  # noqa: SLF001
    return cache._cache_file._source_stamp if hasattr(cache, "_cache_file") else None  # noqa: SLF001
