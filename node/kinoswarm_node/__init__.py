"""The volunteer's daemon: joins, pulls leases, drives its worker, publishes, explains itself."""
