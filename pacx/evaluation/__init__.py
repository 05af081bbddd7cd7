"""What an encoder knows and how sure that is: probes, alignment, attention, statistics."""
