"""The networks: CXR encoder and masked autoencoder, lab autoencoder, ECG teacher, heads."""
