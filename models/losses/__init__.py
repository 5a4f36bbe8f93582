"""Losses: of each row by a task's own rule, of rows of one user against each other, and their sum."""

from models.losses.pointwise import PointwiseConfig
from models.losses.total_loss import Losses, LossScale, RankingLoss, base_entropy
from models.losses.within_user import WithinUserConfig

__all__ = ["LossScale", "Losses", "PointwiseConfig", "RankingLoss", "WithinUserConfig", "base_entropy"]
