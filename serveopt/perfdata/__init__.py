"""Measured facts: packed latency tables, system descriptions and the model catalogue."""
