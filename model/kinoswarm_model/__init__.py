"""Experts, router, flow matching, sampling, data, evaluation. Torch is imported by the modules that compute."""
