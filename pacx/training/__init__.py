"""Every stage's training, around one loop; each saves what it made in the run's folder."""
