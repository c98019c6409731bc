"""What the text source stands on: finding files, reading them piecewise, spooling, cutting rows. Not sources."""
