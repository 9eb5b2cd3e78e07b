"""A tiny transformer with random weights and an awkward vocabulary, for tests and for trying mav without any model.

It is a real transformer of four layers of width 32 in fp32; its logits are biased so that greedy decoding recites WORDS in order and
then ends. The name may have switches, for example "toy?slow=0.05&fail=3":

    load=S      loading takes S seconds
    slow=S      each forward pass takes S seconds more
    fail=N      the forward pass after the Nth generated token raises
    crash=N     the process exits there
    nan=N       from there on the last layer computes NaN
    context=N   tokens that fit (1024)
    endless=1   never ends; begins again
    bare=L      layer L has neither attention nor MLP
"""

from openmav.backends.toy.model import Toy as Toy
from openmav.backends.toy.model import load as load
