"""What policies make of a group's capacity: pure functions over rows and measures. Workers act on a decision, the API previews one.

seen.py      what a decision is made from: bounds, members, measures, webhook calls
verdict.py   what a decision says of each policy
schedule.py  target.py  step.py     one kind each
decide.py    all policies of a group together

What a policy is, and may say, is in `shared.spec.policy` and `shared.spec.policy_settings`. `shared.spec.times` reads cron, and
`shared.spec.changes` "+20%".
"""
