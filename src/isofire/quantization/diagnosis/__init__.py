"""What is wrong with a network's firing, layer by layer, and why.

`diagnose.py` looks at a whole network; `silence.py` says why a layer does not fire, also while a network is calibrated
or trained; `thresholds.py` and `states.py` measure.
"""
