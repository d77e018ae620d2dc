"""Attempts to break the promise: mechanisms on made-up patients, an account played back, and a fit with canaries."""
