"""Experiments, diagnoses and audits rendered for the terminal, as JSON, SARIF and HTML."""
