"""FHIR in and out: views over resources, references, consent, and resources written back."""
