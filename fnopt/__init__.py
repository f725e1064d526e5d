"""fnopt: optimizers for JAX as pure (init, update) pairs over pytrees.

Transformations, optimizers, schedules and the questions to a state are here; losses, the
multilayer perceptron, training and testing are shelves: `fnopt.losses`, `fnopt.mlp`,
`fnopt.training`, `fnopt.testing`.
"""

import importlib as _importlib
import typing as _typing
from types import ModuleType as _ModuleType

from fnopt import schedules as schedules
from fnopt import tree as tree
from fnopt.apply import apply_updates as apply_updates
from fnopt.core import GradientTransformation as GradientTransformation
from fnopt.core import chain as chain
from fnopt.core import composition as composition
from fnopt.core import gradient_transformation as gradient_transformation
from fnopt.core import named_chain as named_chain
from fnopt.hidden_matrices import MatrixReport as MatrixReport
from fnopt.hidden_matrices import matrix_report as matrix_report
from fnopt.hyperparameters import Tunable as Tunable
from fnopt.hyperparameters import hyperparameters as hyperparameters
from fnopt.hyperparameters import set_hyperparameters as set_hyperparameters
from fnopt.injection import inject_hyperparams as inject_hyperparams
from fnopt.matrices import MatrixDimensionNumbers as MatrixDimensionNumbers
from fnopt.optimizers.acprop import acprop as acprop
from fnopt.optimizers.acprop import scale_by_acprop as scale_by_acprop
from fnopt.optimizers.adabelief import adabelief as adabelief
from fnopt.optimizers.adabelief import scale_by_belief as scale_by_belief
from fnopt.optimizers.adadelta import adadelta as adadelta
from fnopt.optimizers.adadelta import scale_by_adadelta as scale_by_adadelta
from fnopt.optimizers.adafactor import adafactor as adafactor
from fnopt.optimizers.adafactor import scale_by_adafactor as scale_by_adafactor
from fnopt.optimizers.adagrad import adagrad as adagrad
from fnopt.optimizers.adagrad import scale_by_rss as scale_by_rss
from fnopt.optimizers.adahessian import adahessian as adahessian
from fnopt.optimizers.adahessian import hutchinson as hutchinson
from fnopt.optimizers.adahessian import scale_by_adahessian as scale_by_adahessian
from fnopt.optimizers.adam import adam as adam
from fnopt.optimizers.adam import scale_by_adam as scale_by_adam
from fnopt.optimizers.adam_atan2 import adam_atan2 as adam_atan2
from fnopt.optimizers.adam_atan2 import scale_by_adam_atan2 as scale_by_adam_atan2
from fnopt.optimizers.adam_mini import adam_mini as adam_mini
from fnopt.optimizers.adam_mini import output_units as output_units
from fnopt.optimizers.adam_mini import scale_by_adam_mini as scale_by_adam_mini
from fnopt.optimizers.adamax import adamax as adamax
from fnopt.optimizers.adamax import adamaxw as adamaxw
from fnopt.optimizers.adamax import scale_by_adamax as scale_by_adamax
from fnopt.optimizers.adamuon import adamuon as adamuon
from fnopt.optimizers.adamw import adamw as adamw
from fnopt.optimizers.adan import adan as adan
from fnopt.optimizers.adan import scale_by_adan as scale_by_adan
from fnopt.optimizers.adan import scale_by_proximal_rate as scale_by_proximal_rate
from fnopt.optimizers.ademamix import ademamix as ademamix
from fnopt.optimizers.ademamix import alpha_warmup_schedule as alpha_warmup_schedule
from fnopt.optimizers.ademamix import b3_warmup_schedule as b3_warmup_schedule
from fnopt.optimizers.ademamix import scale_by_ademamix as scale_by_ademamix
from fnopt.optimizers.adopt import adopt as adopt
from fnopt.optimizers.adopt import scale_by_adopt as scale_by_adopt
from fnopt.optimizers.amsgrad import amsgrad as amsgrad
from fnopt.optimizers.amsgrad import scale_by_amsgrad as scale_by_amsgrad
from fnopt.optimizers.apollo import apollo as apollo
from fnopt.optimizers.apollo import apollo_mini as apollo_mini
from fnopt.optimizers.apollo import scale_by_apollo as scale_by_apollo
from fnopt.optimizers.came import came as came
from fnopt.optimizers.came import scale_by_came as scale_by_came
from fnopt.optimizers.cocob import cocob as cocob
from fnopt.optimizers.cocob import scale_by_cocob as scale_by_cocob
from fnopt.optimizers.dadapt_adamw import dadapt_adamw as dadapt_adamw
from fnopt.optimizers.dadapt_adamw import scale_by_dadapt_adamw as scale_by_dadapt_adamw
from fnopt.optimizers.dion import dion as dion
from fnopt.optimizers.dog import dog as dog
from fnopt.optimizers.dog import (
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
)
from fnopt.optimizers.dog import scale_by_dog as scale_by_dog
from fnopt.optimizers.dowg import dowg as dowg
from fnopt.optimizers.dowg import scale_by_dowg as scale_by_dowg
from fnopt.optimizers.dpsgd import dpsgd as dpsgd
from fnopt.optimizers.fromage import fromage as fromage
from fnopt.optimizers.fromage import scale_by_fromage as scale_by_fromage
from fnopt.optimizers.ftrl import ftrl as ftrl
from fnopt.optimizers.ftrl import scale_by_ftrl as scale_by_ftrl
from fnopt.optimizers.galore import galore as galore
from fnopt.optimizers.galore import scale_by_galore as scale_by_galore
from fnopt.optimizers.lamb import lamb as lamb
from fnopt.optimizers.lamb import scale_by_lamb as scale_by_lamb
from fnopt.optimizers.laprop import laprop as laprop
from fnopt.optimizers.laprop import scale_by_laprop as scale_by_laprop
from fnopt.optimizers.lars import lars as lars
from fnopt.optimizers.lars import scale_by_lars as scale_by_lars
from fnopt.optimizers.lion import lion as lion
from fnopt.optimizers.lion import scale_by_lion as scale_by_lion
from fnopt.optimizers.low_bit import adamw_4bit as adamw_4bit
from fnopt.optimizers.low_bit import adamw_8bit as adamw_8bit
from fnopt.optimizers.low_bit import adamw_bf16_state as adamw_bf16_state
from fnopt.optimizers.low_bit import lion_8bit as lion_8bit
from fnopt.optimizers.madgrad import madgrad as madgrad
from fnopt.optimizers.madgrad import scale_by_madgrad as scale_by_madgrad
from fnopt.optimizers.mars import mars_adamw as mars_adamw
from fnopt.optimizers.mars import mars_lion as mars_lion
from fnopt.optimizers.mars import scale_by_mars as scale_by_mars
from fnopt.optimizers.mars_muon import mars_muon as mars_muon
from fnopt.optimizers.momentum import momentum as momentum
from fnopt.optimizers.momo import momo as momo
from fnopt.optimizers.momo import scale_by_momo as scale_by_momo
from fnopt.optimizers.momo_adam import momo_adam as momo_adam
from fnopt.optimizers.momo_adam import scale_by_momo_adam as scale_by_momo_adam
from fnopt.optimizers.muon import muon as muon
from fnopt.optimizers.muon import scale_by_muon as scale_by_muon
from fnopt.optimizers.muon_clip import clip_attention_logits as clip_attention_logits
from fnopt.optimizers.muon_clip import muon_clip as muon_clip
from fnopt.optimizers.muon_clip import qk_clip as qk_clip
from fnopt.optimizers.nadam import nadam as nadam
from fnopt.optimizers.nadam import nadamw as nadamw
from fnopt.optimizers.nadam import scale_by_nadam as scale_by_nadam
from fnopt.optimizers.noisy_sgd import noisy_sgd as noisy_sgd
from fnopt.optimizers.normuon import normuon as normuon
from fnopt.optimizers.novograd import novograd as novograd
from fnopt.optimizers.novograd import scale_by_novograd as scale_by_novograd
from fnopt.optimizers.optimistic_adam_v2 import optimistic_adam_v2 as optimistic_adam_v2
from fnopt.optimizers.optimistic_gradient_descent import (
    optimistic_gradient_descent as optimistic_gradient_descent,
)
from fnopt.optimizers.optimistic_gradient_descent import (
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
)
from fnopt.optimizers.polyak_sgd import polyak_sgd as polyak_sgd
from fnopt.optimizers.polyak_sgd import scale_by_polyak as scale_by_polyak
from fnopt.optimizers.prodigy import prodigy as prodigy
from fnopt.optimizers.prodigy import scale_by_prodigy as scale_by_prodigy
from fnopt.optimizers.psgd_kron import psgd_kron as psgd_kron
from fnopt.optimizers.radam import radam as radam
from fnopt.optimizers.radam import scale_by_radam as scale_by_radam
from fnopt.optimizers.ranger import ranger as ranger
from fnopt.optimizers.rmsprop import rmsprop as rmsprop
from fnopt.optimizers.rmsprop import scale_by_rms as scale_by_rms
from fnopt.optimizers.rmsprop import scale_by_stddev as scale_by_stddev
from fnopt.optimizers.rprop import rprop as rprop
from fnopt.optimizers.rprop import scale_by_rprop as scale_by_rprop
from fnopt.optimizers.schedule_free import schedule_free_adamw as schedule_free_adamw
from fnopt.optimizers.schedule_free import schedule_free_sgd as schedule_free_sgd
from fnopt.optimizers.scion import scale_by_scion as scale_by_scion
from fnopt.optimizers.scion import scion as scion
from fnopt.optimizers.scion import scion_init as scion_init
from fnopt.optimizers.sgd import sgd as sgd
from fnopt.optimizers.shampoo import shampoo as shampoo
from fnopt.optimizers.sign_sgd import scale_by_signum as scale_by_signum
from fnopt.optimizers.sign_sgd import sign_sgd as sign_sgd
from fnopt.optimizers.sign_sgd import signum as signum
from fnopt.optimizers.simplified_ademamix import (
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
)
from fnopt.optimizers.simplified_ademamix import simplified_ademamix as simplified_ademamix
from fnopt.optimizers.sm3 import scale_by_sm3 as scale_by_sm3
from fnopt.optimizers.sm3 import sm3 as sm3
from fnopt.optimizers.soap import soap as soap
from fnopt.optimizers.sophia import (
    gauss_newton_bartlett_estimator_diag_hessian as gauss_newton_bartlett_estimator_diag_hessian,
)
from fnopt.optimizers.sophia import (
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
)
from fnopt.optimizers.sophia import scale_by_sophia as scale_by_sophia
from fnopt.optimizers.sophia import sophia as sophia
from fnopt.optimizers.stable_adamw import scale_by_stable_adam as scale_by_stable_adam
from fnopt.optimizers.stable_adamw import stable_adamw as stable_adamw
from fnopt.optimizers.yogi import scale_by_yogi as scale_by_yogi
from fnopt.optimizers.yogi import yogi as yogi
from fnopt.schedules import constant_schedule as constant_schedule
from fnopt.schedules import cosine_decay_schedule as cosine_decay_schedule
from fnopt.schedules import cosine_onecycle_schedule as cosine_onecycle_schedule
from fnopt.schedules import cosine_warm_restarts_schedule as cosine_warm_restarts_schedule
from fnopt.schedules import cyclic_schedule as cyclic_schedule
from fnopt.schedules import exponential_decay as exponential_decay
from fnopt.schedules import fraction_schedule as fraction_schedule
from fnopt.schedules import inverse_sqrt_schedule as inverse_sqrt_schedule
from fnopt.schedules import join_schedules as join_schedules
from fnopt.schedules import linear_onecycle_schedule as linear_onecycle_schedule
from fnopt.schedules import linear_schedule as linear_schedule
from fnopt.schedules import multistep_schedule as multistep_schedule
from fnopt.schedules import piecewise_constant_schedule as piecewise_constant_schedule
from fnopt.schedules import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from fnopt.schedules import polynomial_schedule as polynomial_schedule
from fnopt.schedules import rex_schedule as rex_schedule
from fnopt.schedules import sgdr_schedule as sgdr_schedule
from fnopt.schedules import step_schedule as step_schedule
from fnopt.schedules import warmup_constant_schedule as warmup_constant_schedule
from fnopt.schedules import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from fnopt.schedules import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from fnopt.schedules import wsd_schedule as wsd_schedule
from fnopt.sharding import init_sharded as init_sharded
from fnopt.sharding import scattered_value_and_grad as scattered_value_and_grad
from fnopt.sharding import state_shardings as state_shardings
from fnopt.splits import ZeroPlan as ZeroPlan
from fnopt.splits import zero_plan as zero_plan
from fnopt.state import eval_params as eval_params
from fnopt.state import find as find
from fnopt.state import named_arrays as named_arrays
from fnopt.state import restore as restore
from fnopt.state import step_count as step_count
from fnopt.state import tree_get as tree_get
from fnopt.summaries import summary as summary
from fnopt.surgery import carry_over as carry_over
from fnopt.surgery import reset as reset
from fnopt.surgery import resize as resize
from fnopt.transforms.accumulation import apply_every as apply_every
from fnopt.transforms.accumulation import ema as ema
from fnopt.transforms.accumulation import trace as trace
from fnopt.transforms.clipping import adaptive_grad_clip as adaptive_grad_clip
from fnopt.transforms.clipping import clip as clip
from fnopt.transforms.clipping import clip_by_block_rms as clip_by_block_rms
from fnopt.transforms.clipping import clip_by_global_norm as clip_by_global_norm
from fnopt.transforms.clipping import global_norm as global_norm
from fnopt.transforms.constraints import add_noise as add_noise
from fnopt.transforms.constraints import keep_params_nonnegative as keep_params_nonnegative
from fnopt.transforms.constraints import project as project
from fnopt.transforms.constraints import zero_nans as zero_nans
from fnopt.transforms.decay import add_cautious_weight_decay as add_cautious_weight_decay
from fnopt.transforms.decay import add_decayed_weights as add_decayed_weights
from fnopt.transforms.decay import add_independent_weight_decay as add_independent_weight_decay
from fnopt.transforms.decay import add_weight_decay_to_start as add_weight_decay_to_start
from fnopt.transforms.decay import no_decay_on_vectors as no_decay_on_vectors
from fnopt.transforms.factored import scale_by_factored_rms as scale_by_factored_rms
from fnopt.transforms.monitoring import measure_with_ema as measure_with_ema
from fnopt.transforms.monitoring import monitor as monitor
from fnopt.transforms.monitoring import snapshot as snapshot
from fnopt.transforms.normalization import centralize as centralize
from fnopt.transforms.normalization import normalize_by_update_norm as normalize_by_update_norm
from fnopt.transforms.normalization import scale_by_param_block_norm as scale_by_param_block_norm
from fnopt.transforms.normalization import scale_by_param_block_rms as scale_by_param_block_rms
from fnopt.transforms.normalization import scale_by_sign as scale_by_sign
from fnopt.transforms.normalization import scale_by_trust_ratio as scale_by_trust_ratio
from fnopt.transforms.plain import identity as identity
from fnopt.transforms.plain import set_to_zero as set_to_zero
from fnopt.transforms.plain import stateless as stateless
from fnopt.transforms.plain import stateless_with_tree_map as stateless_with_tree_map
from fnopt.transforms.plateau import reduce_on_plateau as reduce_on_plateau
from fnopt.transforms.privacy import (
    differentially_private_aggregate as differentially_private_aggregate,
)
from fnopt.transforms.privacy import per_example_global_norm_clip as per_example_global_norm_clip
from fnopt.transforms.privacy import per_example_layer_norm_clip as per_example_layer_norm_clip
from fnopt.transforms.scaling import scale as scale
from fnopt.transforms.scaling import scale_by_learning_rate as scale_by_learning_rate
from fnopt.transforms.scaling import scale_by_schedule as scale_by_schedule
from fnopt.wrappers.accumulation import MultiSteps as MultiSteps
from fnopt.wrappers.accumulation import accumulate as accumulate
from fnopt.wrappers.accumulation import flush as flush
from fnopt.wrappers.accumulation import has_updated as has_updated
from fnopt.wrappers.accumulation import skip_large_updates as skip_large_updates
from fnopt.wrappers.accumulation import skip_not_finite as skip_not_finite
from fnopt.wrappers.averaging import ema_params as ema_params
from fnopt.wrappers.averaging import polyak_average as polyak_average
from fnopt.wrappers.averaging import swa as swa
from fnopt.wrappers.cautious import cautious as cautious
from fnopt.wrappers.conditional import conditionally_mask as conditionally_mask
from fnopt.wrappers.conditional import conditionally_transform as conditionally_transform
from fnopt.wrappers.grokfast import grokfast as grokfast
from fnopt.wrappers.guard import apply_if_finite as apply_if_finite
from fnopt.wrappers.guard import guard as guard
from fnopt.wrappers.layouts import flatten as flatten
from fnopt.wrappers.layouts import split_real_and_imaginary as split_real_and_imaginary
from fnopt.wrappers.lookahead import lookahead as lookahead
from fnopt.wrappers.lookahead import return_to_slow_weights as return_to_slow_weights
from fnopt.wrappers.loss_scale import dynamic_loss_scale as dynamic_loss_scale
from fnopt.wrappers.loss_scale import loss_scale as loss_scale
from fnopt.wrappers.masking import freeze as freeze
from fnopt.wrappers.masking import masked as masked
from fnopt.wrappers.masking import selective_transform as selective_transform
from fnopt.wrappers.mechanize import mechanize as mechanize
from fnopt.wrappers.offload import offload as offload
from fnopt.wrappers.orthograd import orthograd as orthograd
from fnopt.wrappers.partitioning import partition as partition
from fnopt.wrappers.partitioning import route as route
from fnopt.wrappers.partitioning import where as where
from fnopt.wrappers.precision import kahan as kahan
from fnopt.wrappers.precision import master_params as master_params
from fnopt.wrappers.precision import master_weights as master_weights
from fnopt.wrappers.precision import split_master as split_master
from fnopt.wrappers.sam import asam as asam
from fnopt.wrappers.sam import sam as sam
from fnopt.wrappers.schedule_free import schedule_free as schedule_free
from fnopt.wrappers.store import store as store
from fnopt.wrappers.zero import share_matrices as share_matrices
from fnopt.wrappers.zero import zero as zero

if _typing.TYPE_CHECKING:
    from fnopt import losses as losses
    from fnopt import mlp as mlp
    from fnopt import projections as projections
    from fnopt import testing as testing
    from fnopt import training as training

__version__ = "0.1.0"

_SHELVES = ("losses", "mlp", "projections", "testing", "training")


def __getattr__(name: str) -> _ModuleType:
    """The shelves, imported when first used: `import fnopt` adds little to `import jax`."""
    if name in _SHELVES:
        return _importlib.import_module(f"fnopt.{name}")
    raise AttributeError(f"module 'fnopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SHELVES})
