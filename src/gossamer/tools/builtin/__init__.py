"""Toolkits that come with Gossamer. Each is a function that gives a `Toolkit`."""

from __future__ import annotations

from gossamer.tools.builtin.calculator import CalculationError, calculator
from gossamer.tools.builtin.dataframes import dataframes
from gossamer.tools.builtin.files import files
from gossamer.tools.builtin.git import git
from gossamer.tools.builtin.git_process import GitError
from gossamer.tools.builtin.rooted import FilesError
from gossamer.tools.builtin.rows import QueryError
from gossamer.tools.builtin.sql import sql

__all__ = [
    "CalculationError",
    "FilesError",
    "GitError",
    "QueryError",
    "calculator",
    "dataframes",
    "files",
    "git",
    "sql",
]
