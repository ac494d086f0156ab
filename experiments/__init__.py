"""What is claimed: one file per figure or table of the papers. `CATALOGUE` names them all."""

CATALOGUE = {
    "day-to-accuracy": "day_to_accuracy",
    "early-exit": "early_exit",
    "planning": "planning",
    "storage": "storage",
    "geo": "geo",
    "ablation": "ablation",
}
"""By name the module whose `run` takes what was `experiments.asked.Asked`."""
