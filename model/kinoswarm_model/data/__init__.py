"""Making and preparing data: render, decode, embed, cluster, shard."""
