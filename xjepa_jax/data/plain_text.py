"""Makes untrusted text safe: one line on a terminal, and no formula in a spreadsheet."""

from __future__ import annotations

_FORMULA = "=+-@"  # first characters of a formula
_MARK = "'"


def one_line(text: str) -> str:
  """The text with line ends and other control characters as visible escapes, such as \\n."""
  return "".join(
    each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
  )


def for_spreadsheet(text: str) -> str:
  """The text as a cell that a spreadsheet does not interpret as a formula.

  An apostrophe is put before a cell that would be a formula, and before one that starts with an
  apostrophe, so that removing a leading apostrophe always restores the text.
  """
  begins = text.lstrip()[:1]
  return _MARK + text if begins and begins in _FORMULA + _MARK else text


def from_spreadsheet(cell: str) -> str:
  """The text that was passed to `for_spreadsheet`."""
  return cell[1:] if cell.startswith(_MARK) else cell
