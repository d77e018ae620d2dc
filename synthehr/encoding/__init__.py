"""Columns as cells: which cells there are, and the way from values to cells and back."""
