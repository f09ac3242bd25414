"""The light network process: py-libp2p on trio, without hivemind, its Go daemon or torch. It asks and fetches only."""
