"""The report: figures, and the page."""
