"""Training: the one loop and what it stands on.

``loop.py``       ``fit``: the loop; read its docstring first
``stage_run.py``  what a stage builds: DDP, optimiser, schedule, averaged weights
``checkpoint.py`` safetensors + JSON on any storage, newest complete one wins
``world.py``      this worker among the others
``plan.py``       how a training is run (workers, precision, checkpoints)
``launch.py``     the same loop on Ray Train workers
"""
