"""Compiled core: the kernel header, its one declaration file and the Cython loops around it."""
