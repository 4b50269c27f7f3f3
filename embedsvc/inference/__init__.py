"""From token ids to vectors: encoders, devices, and the operations passes are written in."""
