"""Tests of tables, reports and exports."""
