"""What a synthetic cohort is good for and what it gives away, measured against real patients."""
