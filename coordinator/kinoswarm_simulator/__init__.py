"""A swarm in virtual time: real decisions, made-up machines, network and training."""
