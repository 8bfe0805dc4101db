"""Rows of spreadsheets, .xlsx and .xls; cells are text, numbers or None."""

from __future__ import annotations

import io
import warnings
from types import ModuleType
from typing import Any

from mien.clips.readers.reading import DatasetError
from mien.clips.readers.tree import Tree


def sheet_rows(tree: Tree, path: str, sheet: str | None = None) -> list[list[Any]]:
    """The rows of one sheet of a workbook: the named one, or the first.

    Raises:
        DatasetError: no workbook, no such sheet, or the package that reads it is not installed.
        StorageError: the file cannot be read.
    """
    data = tree.data(path)
    read = _xls_rows if path.lower().endswith(".xls") else _xlsx_rows
    try:
        return read(data, sheet)
    except DatasetError:
        raise
    except KeyError as error:
        raise DatasetError(f"{tree.uri(path)} has no sheet {sheet!r}: {error}") from error
    except Exception as error:
        # Both packages raise their own, zipfile's and struct's errors about a damaged file.
        raise DatasetError(
            f"{tree.uri(path)} is no workbook that can be read: {type(error).__name__}: {error}"
        ) from error


def _xlsx_rows(data: bytes, sheet: str | None) -> list[list[Any]]:
    openpyxl = _package("openpyxl")
    with warnings.catch_warnings():
        # It warns about formatting that it cannot show; only values are read here.
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    try:
        chosen = book.worksheets[0] if sheet is None else book[sheet]
        return [list(row) for row in chosen.iter_rows(values_only=True)]
    finally:
        book.close()


def _xls_rows(data: bytes, sheet: str | None) -> list[list[Any]]:
    xlrd = _package("xlrd")
    book = xlrd.open_workbook(file_contents=data)
    if sheet is not None and sheet not in book.sheet_names():
        raise KeyError(f"its sheets are {', '.join(book.sheet_names())}")
    chosen = book.sheet_by_index(0) if sheet is None else book.sheet_by_name(sheet)
    rows = (chosen.row_values(number) for number in range(chosen.nrows))
    return [[None if cell == "" else cell for cell in row] for row in rows]


def _package(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise DatasetError(
            f"reading this workbook needs the package {name}: pip install 'mien[sheets]'"
        ) from error
