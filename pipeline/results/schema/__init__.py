"""Schemas of the tables, tables derived from others, and their encoding as Parquet."""
