"""Scenarios: the text that says what machine, whose device, which pressure; read, changed and written. Pure.

The lab plays them on real kernels and the model in its own, so they belong to neither.
"""
