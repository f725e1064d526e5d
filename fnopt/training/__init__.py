"""Training: a jitted step, epochs on the device, and what `fnopt train` is made of."""

from fnopt.training.errors import CommandError as CommandError
from fnopt.training.loop import FitResult as FitResult
from fnopt.training.loop import fit as fit
from fnopt.training.microbatch import microbatch as microbatch
from fnopt.training.progress import Progress as Progress
from fnopt.training.step import TrainState as TrainState
from fnopt.training.step import TrainStep as TrainStep
from fnopt.training.step import make_train_step as make_train_step
