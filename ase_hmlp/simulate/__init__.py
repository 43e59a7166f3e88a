"""Building phases, relaxing them under pressure, molecular dynamics, and the demo."""
