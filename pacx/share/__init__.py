"""What leaves a run: exported encoders with their cards, calibrated probes, predictions."""
