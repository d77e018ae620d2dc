"""MEDS, the Medical Event Data Standard, in and out."""
