"""Tables in databases: DuckDB files and PostgreSQL servers."""
