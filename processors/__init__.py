"""Who decides: one file per processor, each a state machine. Read in the order of a round: `configurator`, `selector`,
`aggregator`, `zone_leader`, `global_leader`, `evaluator`."""
