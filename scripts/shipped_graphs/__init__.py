"""The shipped graphs: functions that fill a `WorkflowBuilder`. `scripts/make_workflows.py` writes them."""
