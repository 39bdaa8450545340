"""The study: its grid of cells, reports and figures."""
