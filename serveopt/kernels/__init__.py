"""Numba-compiled routines: pure functions of scalars, arrays and named tuples of arrays.

The caller allocates, the kernel fills. A kernel never validates, never raises and never sees a string.
"""
