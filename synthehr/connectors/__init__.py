"""Bring records in and out: one connector for each form that records are kept in."""
