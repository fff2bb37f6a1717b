"""A value that is equal for equal states, whatever objects they consist of."""

import logging
import types
from collections import deque
from collections.abc import Collection
from enum import Enum
from random import Random
from typing import Any

import msgspec

from listener.reserves import Look, Looked
from tests.simulation.redis import Redis

_ATOMS = (int, float, str, bytes, type(None), Enum)
_IGNORED = (Look, Looked, types.FunctionType, types.MethodType, types.BuiltinFunctionType, logging.Logger, Random, type)


def freeze(value: Any, skipped: Collection[str]) -> Any:
    """Return `value` as nested tuples.

    Args:
        value: of any type; functions, loggers and generators of random numbers are left out.
        skipped: names of attributes that are left out.
    """
    return _freeze(value, frozenset(skipped), {})


def _freeze(value: Any, skipped: frozenset[str], seen: dict[int, int]) -> Any:  # noqa: PLR0911 - one for each type
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, _IGNORED):
        return None
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    if isinstance(value, tuple | list | deque):
        return tuple([_freeze(item, skipped, seen) for item in value])
    if isinstance(value, dict):
        return tuple([(_freeze(key, skipped, seen), _freeze(item, skipped, seen)) for key, item in value.items()])
    if isinstance(value, set | frozenset):
        return frozenset(value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, Redis):
        return _freeze_redis(value)
    if (struct_fields := getattr(value, "__struct_fields__", None)) is not None:
        return tuple([_freeze(getattr(value, name), skipped, seen) for name in struct_fields])
    fields = vars(value)
    return (type(value).__name__, *[_freeze(fields[name], skipped, seen) for name in fields if name not in skipped])


def _freeze_redis(redis: Redis) -> Any:
    """Without the registry's fields: only the state and the time of a heartbeat decide anything."""
    registry = tuple((key, fields.get("state"), redis.expires.get(key)) for key, fields in redis.hashes.items())
    return redis.up, redis.refusal, tuple(redis.entries), len(redis.published), redis.highest, registry
