"""Output for people: tables on the terminal and a plot of the learning curves."""
