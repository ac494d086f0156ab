"""The benchmark of simulations runs, and says what it counted; no figure of speed is looked at."""

from benchmarks import simulate
from olearning.nothing import simulate_nothing, simulate_training


def test_each_case_has_a_line_with_its_limit():
    lines = []
    simulate.run(lines.append, simulate_nothing, simulate_training, devices=(6,), parameters=(500, 70_000), updates=24)
    assert [x.case for x in lines] == [
        "devices=6 parameters=500",
        "devices=6 parameters=70k",
        "devices=6 training mlp 64-64-10",
    ]
    for line in lines:
        made = line.settings
        assert made["updates"] == 6 * made["rounds"], "every device in every round"
        assert made["rounds"] >= 2
        assert line.limit > 0
    assert lines[0].settings["updates"] == 24


def test_the_figures_that_were_measured_elsewhere_are_no_peer():
    assert all(f > 0 for f in simulate.FLOWER.values())
    lines = []
    simulate.run(lines.append, simulate_nothing, simulate_training, devices=(100,), parameters=(10_000,), updates=200)
    assert lines[0].peer == ""
    assert lines[0].settings["flower_ray_updates_s_another_run"] == simulate.FLOWER[100, 10_000]
