"""Conformance for anyone's optimizer: the laws, problems with known solutions, oracles.

from fnopt.testing import Builder, check, report
check(Builder(my_optimizer, 1e-3))
"""

from fnopt.testing import problems as problems
from fnopt.testing.laws import LAWS as LAWS
from fnopt.testing.laws import Builder as Builder
from fnopt.testing.laws import Finding as Finding
from fnopt.testing.laws import Law as Law
from fnopt.testing.laws import LawError as LawError
from fnopt.testing.laws import check as check
from fnopt.testing.laws import check_masked as check_masked
from fnopt.testing.laws import check_norm as check_norm
from fnopt.testing.laws import report as report
