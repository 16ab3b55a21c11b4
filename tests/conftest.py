"""What is being built and cannot be held to its tests yet; each line goes when it is whole."""

collect_ignore_glob = [
    "canvas/*",  # workflows: on two stores not yet
    "interop/*",  # the real celery package beside ours, on Redis
    "drivers/test_rabbitmq*",
    "faults/test_rabbitmq*",
    "faults/test_workflows*",
]
