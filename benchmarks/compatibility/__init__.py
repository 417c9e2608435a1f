"""The wheel in fresh environments: each Python, the oldest and the newest torch."""
