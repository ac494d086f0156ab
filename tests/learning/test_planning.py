"""The problems of the paper's §7.2, and the ways to plan them that benchmarks and experiments compare."""

from learning.knapsack import Found, bound, greedy, plan, solve, total
from learning.planning import by_reward, drawn, ways


def test_problems_are_drawn_as_it_says_and_again_the_same():
    rewards, times, slots = drawn(0, 2000, 2000)
    for values, least, most in ((rewards, 0.01, 1), (times, 30, 300), (slots, 60, 600)):
        assert len(values) == 2000
        assert least <= min(values) < least + 0.05 * most
        assert 0.95 * most < max(values) <= most
    assert drawn(1, 20, 5) == drawn(1, 20, 5) != drawn(2, 20, 5)


def test_by_reward_takes_the_largest_first_into_the_first_slot_that_holds_it():
    assert by_reward([1.0, 3.0, 2.0, 0.5], [4, 6, 5, 3], [5, 9, 5]) == (2, 1, 0, 1)
    assert by_reward([1.0, 3.0], [1, 10], [10]) == (None, 0)
    assert by_reward([], [], []) == ()


def test_control_by_reward_is_worse_than_greedy_and_greedy_than_the_best():
    """Else the comparison says nothing."""
    problem = drawn(0, 40, 4)
    rewards = [total(*problem, found(*problem)) for found in (by_reward, greedy)] + [
        total(*problem, solve(*problem, greedy(*problem), work=1.0).plan)
    ]
    assert rewards == sorted(set(rewards))
    assert rewards[-1] <= bound(*problem)


def test_each_way_is_what_its_name_says_and_ends_by_its_limit():
    problem = drawn(2, 30, 3)
    found = {name: way() for name, way in ways(problem, work=0.01).items()}
    assert list(found) == ["by_reward", "greedy", "by_slot", "unhinted", "hinted", "plan"]
    assert found["plan"] == Found(plan(*problem, work=0.01), False)
    assert found["unhinted"] == solve(*problem, work=0.01)
    assert found["hinted"] == solve(*problem, greedy(*problem), work=0.01)
    nothing = {name: total(*problem, way().plan) for name, way in ways(problem, work=0.0).items()}
    assert nothing["unhinted"] == 0 < nothing["hinted"] == nothing["greedy"]
