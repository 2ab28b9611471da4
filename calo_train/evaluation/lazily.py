"""Values that an object computes when they are first asked for, and keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")


class lazily(Generic[_Value]):  # noqa: N801 - a decorator
    """A property that is computed once.

    As `functools.cached_property`, which up to Python 3.11 holds one lock for all objects of a
    class while it computes: threads that measure showers of their own would wait for each other.
    """

    def __init__(self, compute: Callable[[Any], _Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> _Value:
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # found there before this property from now on
        return value
