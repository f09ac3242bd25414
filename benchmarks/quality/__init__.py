"""The proof of the project's claim: routed experts beside one big model at equal training compute."""
