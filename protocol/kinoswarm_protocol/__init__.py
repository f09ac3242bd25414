"""The wire and the words: ids, limits, errors, messages, signing, manifests.

Pure: no IO, no clock, no torch, no asyncio.
"""
