"""Compiled CPU kernels: a small vector language, its mathematics, compiler and threads.

Knows neither networks nor physics. A kernel is written as Python functions over `Vector` values
that emit LLVM IR; it is compiled once for a machine and kept on disk.
"""
