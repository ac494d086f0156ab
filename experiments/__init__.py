"""What is claimed: one file per figure or table of the papers. `CATALOGUE` names them all."""

CATALOGUE = {
    "day-to-accuracy-har": "day_to_accuracy:har",
    "day-to-accuracy-har-features": "day_to_accuracy:features",
    "day-to-accuracy-speech": "day_to_accuracy:speech",
    "day-to-accuracy-speech-resnet8": "day_to_accuracy:resnet",
    "day-to-accuracy-large": "day_to_accuracy:large",
    "early-exit": "early_exit",
    "planning": "planning",
    "storage": "storage",
    "geo": "geo",
    "ablation": "ablation",
    "sharing": "sharing",
    "eclm-accuracy-har": "eclm.accuracy:har",
    "eclm-accuracy-cifar10": "eclm.accuracy:cifar10",
    "eclm-accuracy-speech": "eclm.accuracy:speech",
}
"""By name the module whose `run`, or the function of it that is named, takes what was `experiments.asked.Asked`."""
