"""Experts, router, flow matching, sampling, data preparation, evaluation. Torch is imported by the modules that compute."""
