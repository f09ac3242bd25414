"""The one program 'kinoswarm', and the demo."""
