"""Parquet files as DuckDB reads them."""

from __future__ import annotations

from typing import Any

import duckdb


def asked(query: str) -> list[tuple[Any, ...]]:
    """The rows of an answer."""
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()
