"""Console: one page for operators, plain files for a browser (`page/`), and what serves them (`pages`)."""
