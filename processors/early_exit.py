"""Early exit (OLearning §7.1): whether a task ends after an epoch, as a function of the fold. The decision is a `TaskEnded`."""

from learning.rewards import zone_reward
from streams.ledger import GlobalTask


def why_over(t: GlobalTask) -> str:
    """Why a task that is between two epochs opens none any more, or ""."""
    if t.wanted == "stop":
        return f"stopped by {t.by}" if t.by else "stopped"
    return _early(t) or (f"all {t.epoch} epochs are done" if t.epoch >= t.spec.epochs.count else "")


def _early(t: GlobalTask) -> str:
    stop, score = t.spec.stop, t.score
    if score and score.epoch == t.epoch:
        if stop.accuracy is not None and score.accuracy >= stop.accuracy:
            return f"accuracy {score.accuracy:.4f} is reached, and {stop.accuracy:g} was wanted"
        if stop.loss is not None and score.loss <= stop.loss:
            return f"loss {score.loss:.4f} is reached, and {stop.loss:g} was wanted"
        if stop.patience and t.best and score.epoch - t.best.epoch >= stop.patience:
            return (
                f"since epoch {t.best.epoch} the loss did not fall by more than {stop.delta:g} below {t.best.loss:.4f}"
            )
    if stop.reward and t.updates and set(t.updates) >= set(t.part):
        best = max(zone_reward(t.contribution(z), t.updates[z].progress) for z in t.part)
        if best <= stop.reward:
            return f"no zone's reward is above {stop.reward:g} any more: the best is {best:.4g}"
    return ""


def waits_until(t: GlobalTask) -> int:
    """Up to when (ms) a task between two epochs waits for the score of its last model; 0: it does not."""
    scored = t.score is not None and t.score.epoch == t.epoch
    if scored or not t.fresh or not t.spec.stop.by_score or t.wanted == "stop" or t.epoch >= t.spec.epochs.count:
        return 0
    return t.merged_time + round(1000 * t.spec.stop.wait_s)
