"""Draws the pictures and writes the tables of the documents: ``python -m docs.figures.NAME``."""
