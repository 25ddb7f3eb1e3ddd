"""Options that can be said again, each time with one value or more."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import tyro

__all__ = ["Several"]

Several: TypeAlias = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
