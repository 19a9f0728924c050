"""Console: one page for operators, as plain files for a browser (`page/`), and their server (`pages`)."""
