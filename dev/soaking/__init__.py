"""`dev/soak`: the whole service under random requests and random faults, held against a model of what it should be.

It goes in rounds. In each, users send requests and things break, both drawn from the seed; then users and faults pause, and every group
must come to its capacity exactly. The same seed is the same sequence of requests and faults; what comes of them depends on the moment.

    trial.py    what must be so when all is quiet, and how it is waited for
    rounds.py   the rounds
    day.py      instead of them a day of many groups, compressed: `dev/soak --day`
    usage.py    memory and processor of each program
    oracle.py   what each account should have: every answer is predicted, and every capacity is remembered with its time
    users.py    requests of one account, one after the other
    owners.py   the same, by one who knows of members and rollouts
    faults.py   what is broken, how, and for how long
    ledger.py   the lives of all machines, held against the capacities: who was launched or deleted without need
    world.py    the stack, its accounts, and what all of them write down
"""
