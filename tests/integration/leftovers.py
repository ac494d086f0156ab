"""Which processes run, by a word of their command line."""

import subprocess


def mentioning(word: str) -> list[str]:
    """The process id and command line of all that have it in theirs."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True)
    lines = [x.split(None, 2) for x in listed.stdout.splitlines()]
    return [f"{pid} {args}" for pid, stat, args in lines if word in args and not stat.startswith("Z")]
