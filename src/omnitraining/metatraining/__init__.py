"""Meta-training algorithms, one file each."""

from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.maml import MAML
from omnitraining.metatraining.protonet import ProtoNet

__all__ = ["MAML", "MetaTraining", "ProtoNet"]
