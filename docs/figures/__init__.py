"""Draw the figures and write the tables of the documentation: ``python -m docs.figures.NAME``."""
