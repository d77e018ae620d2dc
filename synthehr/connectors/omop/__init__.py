"""The OMOP Common Data Model, versions 5.3 and 5.4, in folders of files, DuckDB and PostgreSQL."""
