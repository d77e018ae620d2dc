"""Reports of an evaluation: JSON for programs, HTML for people, Markdown for reviews, JUnit for pipelines."""
