"""Omni-Loss as pure functions, each under its equation's number (paper 4.2)."""

from torch import Tensor
from torch.nn import functional as F

from omnitraining.precision import at_least_float32


# Eq. 7: L_joint = l_pre(H_joint o F_joint on B) + l_meta(H_joint o F_joint on Q given S)
def joint_loss(pre_loss: Tensor, meta_loss: Tensor) -> Tensor:
    """Joint-training: both losses, each already a mean over its samples, on the joint-flow."""
    return pre_loss + meta_loss


# Eq. 10 and 13: R = E l_2(teacher output, student output)
def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Self-distillation on raw outputs: logits, negative distances or predicted values.

    The squared loss is a mean over samples and outputs; the paper does not say which, and a sum
    over 64 logits at lambda = 3 would swamp the cross-entropy. No gradient reaches the teacher.

    Args:
        student: outputs [..., O].
        teacher: outputs of the EMA model for the same inputs [..., O].
    """
    return F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))


# Eq. 10 and 13, on probabilities: our alternative, which no logit scale can turn into a brake
def probability_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of class probabilities, summed over classes, mean over samples.

    Args:
        student: logits [..., N].
        teacher: logits of the EMA model for the same inputs [..., N].
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    difference = student.softmax(-1) - teacher.softmax(-1)
    return difference.square().sum(-1).mean()


# Eq. 11 and 14: J = L + lambda R
def regularized_loss(loss: Tensor, regularizer: Tensor, weight: float) -> Tensor:
    """The loss of a parallel flow with its self-distillation."""
    return loss + weight * regularizer


# Eq. 15: O_Omni = J_pre + J_meta + L_joint
def omni_loss(pre: Tensor, meta: Tensor, joint: Tensor) -> Tensor:
    """The whole objective, all weights 1."""
    return pre + meta + joint


# Eq. 17: l_pre = (H o F(x) - y)^2
def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over samples and outputs, both [..., D]."""
    return F.mse_loss(at_least_float32(outputs), targets)


# Eq. 16: l_pre = -log softmax(w^T F(x) + b)_y
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [..., N] against class indices [...]."""
    return F.cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten())
