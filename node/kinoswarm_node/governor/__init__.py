"""The governor: when and how much a node may compute. readings.py sees, decide.py decides, watch.py carries it out."""
