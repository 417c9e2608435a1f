"""Meta-training algorithms, one file each."""

from omnitraining.metatraining.anil import ANIL
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.can import CAN
from omnitraining.metatraining.gnn import GNN
from omnitraining.metatraining.hard_tasks import HardTasks
from omnitraining.metatraining.learned_ft import LearnedFT
from omnitraining.metatraining.leo import LEO
from omnitraining.metatraining.maml import MAML
from omnitraining.metatraining.matchingnet import MatchingNet
from omnitraining.metatraining.meta_maxup import MetaMaxUp
from omnitraining.metatraining.metaoptnet import MetaOptNet
from omnitraining.metatraining.multi_task import MultiTask
from omnitraining.metatraining.protonet import ProtoNet
from omnitraining.metatraining.relationnet import RelationNet
from omnitraining.metatraining.reptile import Reptile
from omnitraining.metatraining.tadam import TADAM
from omnitraining.metatraining.tapnet import TapNet

__all__ = [
    "ANIL",
    "CAN",
    "GNN",
    "LEO",
    "MAML",
    "TADAM",
    "HardTasks",
    "LearnedFT",
    "MatchingNet",
    "MetaMaxUp",
    "MetaOptNet",
    "MetaTraining",
    "MultiTask",
    "ProtoNet",
    "RelationNet",
    "Reptile",
    "TapNet",
]
