"""Full frames and a catalogue in, triplets out."""
