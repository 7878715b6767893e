"""Random walks: what users, installers and accidents do to a venv, the promises checked at each step."""
