"""Transfer onto a survey's own labels: the only room that imports torch."""
