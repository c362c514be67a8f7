"""The model's prediction beside what real kernels did with the same scenario."""
