"""Swarm state, scheduling, verdicts, versions, releases, API and page. Neither torch nor hivemind in this process."""
