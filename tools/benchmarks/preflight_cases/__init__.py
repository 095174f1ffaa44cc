"""What the recall of the preflight is measured on: small data, working configs, and faults put into them."""
