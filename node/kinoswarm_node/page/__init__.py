"""The volunteer's own page on this machine. guard.py keeps others out, app.py answers, server.py serves."""
