"""Meta-training algorithms, one file each."""

from omnitraining.metatraining.anil import ANIL
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.gnn import GNN
from omnitraining.metatraining.maml import MAML
from omnitraining.metatraining.matchingnet import MatchingNet
from omnitraining.metatraining.metaoptnet import MetaOptNet
from omnitraining.metatraining.protonet import ProtoNet
from omnitraining.metatraining.relationnet import RelationNet

__all__ = [
    "ANIL",
    "GNN",
    "MAML",
    "MatchingNet",
    "MetaOptNet",
    "MetaTraining",
    "ProtoNet",
    "RelationNet",
]
