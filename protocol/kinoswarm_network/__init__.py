"""The network process and its clients: DHT, streams, blobs, and HTTP as the second way."""
